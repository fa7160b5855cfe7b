"""A start without those modules of torch that inference never uses.

``python -m app.lean.find`` finds out which these are, at image build; `start` leaves them out.
"""
