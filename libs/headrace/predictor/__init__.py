"""The trained length predictor behind headrace.core.lengths: Proxy predicts batches, PredictorThread runs it aside.

Importing this package imports neither onnxruntime nor tokenizers.
"""
