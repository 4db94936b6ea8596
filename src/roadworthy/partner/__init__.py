"""The provider's side of billing: what each request cost, remembered and told.

    from roadworthy.partner import CostMiddleware, Price

`costs` is plain arithmetic and wire format, which the sandbox uses too; nothing here imports it for the rest.
"""
