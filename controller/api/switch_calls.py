"""The calls about switches."""

from wiresum.controller.api.calls import Calls, Context, or_status
from wiresum.controller.api.messages import switch_message
from wiresum.controller.errors import ControllerError
from wiresum.controller.state.model import Switch
from wiresum.controller.v1 import controller_pb2 as pb


class SwitchCalls(Calls):
    """Adding, listing, draining and removing switches: for the admin."""

    async def AddSwitch(self, request: pb.AddSwitchRequest, context: Context) -> pb.Switch:
        """Registers or updates a switch."""

        async def answer() -> pb.Switch:
            self._admin(context, "add switches")
            return self._switch(await self._office.add_switch(request))

        return await or_status(answer(), context)

    async def ListSwitches(
        self, request: pb.ListSwitchesRequest, context: Context
    ) -> pb.ListSwitchesResponse:
        """Lists all switches."""

        async def answer() -> pb.ListSwitchesResponse:
            self._admin(context, "list switches")
            switches = [self._switch(switch) for switch in self._office.state.switches()]
            if request.counters:
                for switch in switches:
                    try:
                        drops = await self._office.fleet.loop(switch.name).read_drops()
                        switch.drops.update(drops)
                    except ControllerError as error:
                        switch.counters_error = str(error)
            return pb.ListSwitchesResponse(switches=switches)

        return await or_status(answer(), context)

    async def DrainSwitch(self, request: pb.DrainSwitchRequest, context: Context) -> pb.Switch:
        """Takes a switch out of service for new jobs, or back."""

        async def answer() -> pb.Switch:
            self._admin(context, "drain switches")
            return self._switch(self._office.drain_switch(request.name, drain=not request.undrain))

        return await or_status(answer(), context)

    async def RemoveSwitch(
        self, request: pb.RemoveSwitchRequest, context: Context
    ) -> pb.RemoveSwitchResponse:
        """Forgets a switch."""

        async def answer() -> pb.RemoveSwitchResponse:
            self._admin(context, "remove switches")
            await self._office.remove_switch(request.name)
            return pb.RemoveSwitchResponse()

        return await or_status(answer(), context)

    def _switch(self, switch: Switch) -> pb.Switch:
        state = self._office.state
        loop = self._office.fleet.find(switch.name)
        draining = switch.name in state.draining()
        jobs = state.jobs_on(switch.name, members=False)
        return switch_message(switch, loop, jobs, draining=draining)
