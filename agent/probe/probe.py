"""The probe: one login, one look at every VM, one read."""

from agent.probe.errors import VmNotThere
from agent.probe.machines import machine_report, missing_privileges, recommended_privileges
from agent.probe.report import LeftOutReport, PrivilegesReport, ProbeReport, VsphereReport
from agent.probe.timed_read import timed_read
from agent.vsphere.models import SurveyedVm
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from shared.snapshot_alarms import AlarmLimits


def probe(site: VsphereSite, settings: VsphereSettings, agent_version: str, vm: str) -> ProbeReport:
    """Look at all VMs, or at those that `vm` names; changes nothing at the site.

    Raises VsphereErrors, VmNotThere. What the read meets is part of the report.
    """
    about = site.about()
    survey = site.survey()
    machines = [one for one in survey.machines if not vm or _is_named(one, vm)]
    left_out = [one for one in survey.left_out if vm in ("", one.name, one.moref)]
    if vm and not machines and not left_out:
        raise VmNotThere(about.address, vm)
    now = site.time()
    limits = AlarmLimits(settings.snapshot_age_alarm_h, settings.snapshot_count_alarm)
    return ProbeReport(
        site=settings.site,
        agent_version=agent_version,
        vsphere=VsphereReport(about.address, about.full_name, about.api_type, about.api_version),
        privileges=PrivilegesReport(
            settings.user,
            missing_privileges(machines),
            recommended_privileges(machines),
            survey.privileges_problem,
        ),
        machines=[machine_report(one, now, limits) for one in machines],
        left_out=[LeftOutReport(one.name, one.moref, one.reason) for one in left_out],
        read=timed_read(site, machines, settings.transport),
    )


def _is_named(vm: SurveyedVm, name: str) -> bool:
    info = vm.info
    return name in (info.name, info.moref) or name.lower() == info.instance_uuid.lower()
