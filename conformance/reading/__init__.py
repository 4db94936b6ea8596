"""How checks read answers: media, vectors, subtitles, metrics, times, refusals, and what one family's share."""
