"""A connector of one's own: a base URL, its secrets, `read()`, and one short method for each operation.

Pigeon is no real platform; `python docs/connectors/pigeon.py` talks to a scripted one.
"""

import asyncio

from aragora_transport.connectors import Answer, ChatPlatformConnector, segment
from aragora_transport.testing import ManualClock, Reply, ScriptedTransport


class PigeonConnector(ChatPlatformConnector):
    """A bot of Pigeon's."""

    def __init__(self, token, *, base_url="https://api.pigeon.example/v2", **keywords):
        super().__init__(base_url=base_url, secrets={"pigeon-token": token}, **keywords)
        self._headers = {"Authorization": f"Bearer {self._secrets['pigeon-token']}"}

    def read(self, answer: Answer):
        """What Pigeon's answers mean: JSON objects, with a `reason` where something went wrong."""
        return answer.success(answer.fields) if answer.ok else answer.failure(answer.fields.get("reason"))

    async def _call(self, method, path, operation, **keywords):
        return await self._request(method, path, operation=operation, headers=self._headers, **keywords)

    async def send_message(self, channel_id, text):
        """Post a message of at most 500 characters."""
        path = f"lofts/{segment(channel_id)}/messages"
        return self._too_long("send_message", text, 500) or await self._call(
            "POST", path, "send_message", json={"text": text}
        )

    async def delete_message(self, channel_id, message_id):
        """Delete a message."""
        path = f"lofts/{segment(channel_id)}/messages/{segment(message_id)}"
        return await self._call("DELETE", path, "delete_message")

    async def health(self):
        """Whether token and platform work."""
        return await self._call("GET", "me", "health")


async def main():
    """A 503 and a 429 later the message is there."""
    clock = ManualClock()
    busy = Reply(status=429, headers={"Retry-After": "5"})
    network = ScriptedTransport(503, busy, Reply(body=b'{"id": "m1"}'), clock=clock)
    async with PigeonConnector("a-token", transport=network, clock=clock) as pigeon:
        result = await pigeon.send_message("roof", "coo")
        print(result.data, "after", result.attempts, "attempts")
        print((await pigeon.send_message("roof", "coo" * 200)).error)


if __name__ == "__main__":
    asyncio.run(main())
