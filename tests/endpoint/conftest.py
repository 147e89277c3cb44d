from .stub import alone

__all__ = ["alone"]  # a fixture
