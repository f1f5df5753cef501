"""The gRPC service: requests in, messages out, errors as statuses with one line."""

from wiresum.controller.api.job_calls import JobCalls
from wiresum.controller.api.switch_calls import SwitchCalls
from wiresum.controller.api.tenant_calls import TenantCalls
from wiresum.controller.v1 import controller_pb2_grpc as pb_grpc


class ControllerService(SwitchCalls, TenantCalls, JobCalls, pb_grpc.ControllerServicer):
    """Serves an office. Each call is documented in the .proto."""
