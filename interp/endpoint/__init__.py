"""A model behind any OpenAI-compatible endpoint: cached answers, retries, a budget; who uses it decides what to ask."""

from interp.endpoint.budget import Budget
from interp.endpoint.client import EndpointGenerator
from interp.endpoint.settings import EndpointSettings, Query

__all__ = ["Budget", "EndpointGenerator", "EndpointSettings", "Query"]
