"""`python -m headrace.training`: rebuilds the image adapter, the only one there is."""

from headrace.training.image import main

main()
