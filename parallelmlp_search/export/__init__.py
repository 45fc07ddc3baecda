"""Export of trained models to formats that need neither this package nor torch.

``columns`` says which columns an exported model takes, and ``parts`` takes a trained model apart into named
arrays and a description. Each format is made of these parts: ``onnx_model`` builds a graph, ``standalone`` is
the program of the NumPy folder, and ``torch_module`` holds them in a module. ``writing`` writes the files.
"""

from parallelmlp_search.export.writing import FORMATS, export_model

__all__ = ["FORMATS", "export_model"]
