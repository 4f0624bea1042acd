"""A stand-in of the Oxen hub for machines that cannot reach it: development, tests, demonstrations, load.

It behaves as the hub's API reference and model pages say, gaps included: parameters are judged late, the event stream
has no replay, a cancelled generation sends no event, result URLs expire. It imports nothing of the rest of the service.
"""

from service.sandbox.faults import Faults
from service.sandbox.options import SandboxOptions
from service.sandbox.server import Sandbox, serve
from service.sandbox.studio import RenderingUnavailableError

__all__ = ["Faults", "RenderingUnavailableError", "Sandbox", "SandboxOptions", "serve"]
