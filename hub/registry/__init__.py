"""The registry under /v2/: OCI distribution, pull and push, over one layout folder. Publishing a pipeline is a push."""
