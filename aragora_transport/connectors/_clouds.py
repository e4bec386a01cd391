"""Microsoft's clouds: where Teams' tokens come from, and which hosts they go to.

The endpoints are those of Microsoft's own Teams SDK (microsoft/teams.py, cloud_environment.py), the hosts
those of its page "Service URL Validation".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Cloud:
    """One of them.

    `login`: where tokens are asked for. `login_tenant`: whose a bot is that serves many tenants.
    `bot_scope`: of its tokens. `graph`: Microsoft Graph. `hosts`: of service URLs, the usual one first.
    `issuer`: who signs the tokens of inbound activities. `openid`: where the keys for these are to be found.
    """

    login: str
    login_tenant: str
    bot_scope: str
    graph: str
    hosts: tuple[str, ...]
    issuer: str
    openid: str


CLOUDS = {
    "public": Cloud(
        login="https://login.microsoftonline.com",
        login_tenant="botframework.com",
        bot_scope="https://api.botframework.com/.default",
        graph="https://graph.microsoft.com",
        hosts=(
            "smba.trafficmanager.net",
            "smba.onyx.prod.teams.trafficmanager.net",
            "smba.infra.gcc.teams.microsoft.com",
        ),
        issuer="https://api.botframework.com",
        openid="https://login.botframework.com",
    ),
    "usgov": Cloud(
        login="https://login.microsoftonline.us",
        login_tenant="MicrosoftServices.onmicrosoft.us",
        bot_scope="https://api.botframework.us/.default",
        graph="https://graph.microsoft.us",
        hosts=("smba.infra.gov.teams.microsoft.us",),
        issuer="https://api.botframework.us",
        openid="https://login.botframework.azure.us",
    ),
    "usgovdod": Cloud(
        login="https://login.microsoftonline.us",
        login_tenant="MicrosoftServices.onmicrosoft.us",
        bot_scope="https://api.botframework.us/.default",
        graph="https://dod-graph.microsoft.us",
        hosts=("smba.infra.dod.teams.microsoft.us",),
        issuer="https://api.botframework.us",
        openid="https://login.botframework.azure.us",
    ),
    "china": Cloud(
        login="https://login.partner.microsoftonline.cn",
        login_tenant="microsoftservices.partner.onmschina.cn",
        bot_scope="https://api.botframework.azure.cn/.default",
        graph="https://microsoftgraph.chinacloudapi.cn",
        hosts=("frontend.botapi.msg.infra.teams.microsoftonline.cn",),
        issuer="https://api.botframework.azure.cn",
        openid="https://login.botframework.azure.cn",
    ),
}
