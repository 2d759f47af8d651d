"""A power cut rehearsed on a live mesh: a scene of profile engines, its load, what is watched, what is made of it.

`headrace demo-governor` shows it, `headrace bench governor` judges it; both start the mesh themselves.
"""
