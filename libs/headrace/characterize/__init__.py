"""What serving a model is like, stage by stage, and what a trace's traffic is like: ModServe's analysis, for any.

From cost profiles, from a running mesh through the SDK, or from a trace; on screen, as a page, as JSON.
"""
