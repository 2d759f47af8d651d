"""Video clips: a few frames, evenly spread, each through the image encoder."""

FRAMES_MAX = 8
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def frame_label(index: int) -> str:
    """What stands before a frame's rows, as text: its embeddings are part of the video's rows."""
    return f" {_ORDINALS[index]} frame:"
