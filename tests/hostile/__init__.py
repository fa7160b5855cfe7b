"""Inputs that would harm: each is made when a test asks for it, and says what must come of it."""
