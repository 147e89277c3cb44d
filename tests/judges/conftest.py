from endpoint.stub import alone

__all__ = ["alone"]  # a fixture: no proxy, no key, a cache of the test's own
