"""The calls about tenants."""

from wiresum.controller.api.calls import Calls, Context, or_status
from wiresum.controller.api.messages import tenant_message
from wiresum.controller.state.model import Tenant
from wiresum.controller.v1 import controller_pb2 as pb


class TenantCalls(Calls):
    """Adding, listing, changing and removing tenants: for the admin."""

    async def AddTenant(self, request: pb.AddTenantRequest, context: Context) -> pb.Tenant:
        """Adds a tenant; the answer has its token."""

        async def answer() -> pb.Tenant:
            self._admin(context, "add tenants")
            tenant, token = self._office.add_tenant(request)
            return self._tenant(tenant, token)

        return await or_status(answer(), context)

    async def ListTenants(
        self, request: pb.ListTenantsRequest, context: Context
    ) -> pb.ListTenantsResponse:
        """Lists all tenants, or the one that asks."""

        async def answer() -> pb.ListTenantsResponse:
            own = self._caller(context).own_tenant
            usage = self._office.state.usage()
            return pb.ListTenantsResponse(
                tenants=[
                    tenant_message(tenant, usage[tenant.name], "")
                    for tenant in self._office.state.tenants()
                    if own in (None, tenant.name)
                ]
            )

        return await or_status(answer(), context)

    async def SetTenant(self, request: pb.SetTenantRequest, context: Context) -> pb.Tenant:
        """Changes a tenant's limits and priority."""

        async def answer() -> pb.Tenant:
            self._admin(context, "change tenants")
            return self._tenant(self._office.set_tenant(request))

        return await or_status(answer(), context)

    async def RotateTenantToken(
        self, request: pb.RotateTenantTokenRequest, context: Context
    ) -> pb.Tenant:
        """Gives a tenant another token."""

        async def answer() -> pb.Tenant:
            self._admin(context, "rotate tenants' tokens")
            tenant, token = self._office.rotate_tenant(request.name)
            return self._tenant(tenant, token)

        return await or_status(answer(), context)

    async def RemoveTenant(
        self, request: pb.RemoveTenantRequest, context: Context
    ) -> pb.RemoveTenantResponse:
        """Forgets a tenant."""

        async def answer() -> pb.RemoveTenantResponse:
            self._admin(context, "remove tenants")
            await self._office.remove_tenant(request.name, evict=request.evict)
            return pb.RemoveTenantResponse()

        return await or_status(answer(), context)

    def _tenant(self, tenant: Tenant, token: str = "") -> pb.Tenant:
        return tenant_message(tenant, self._office.state.usage()[tenant.name], token)
