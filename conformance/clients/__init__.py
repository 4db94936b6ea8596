"""Real client libraries as judges: what each makes of a recorded answer, without any network.

`ask.ask` asks one client; `install.install` gets the JavaScript ones; `opinion.Opinion` is what is heard.
"""
