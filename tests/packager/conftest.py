"""Laws are tried without a deadline: the machine that tries them may be busy."""

from hypothesis import settings

settings.register_profile("edgepack", deadline=None)
settings.load_profile("edgepack")
