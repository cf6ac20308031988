"""A server of the official SDK whose tool asks the user before it acts.

    asking_server.py [PORT]

Without a port, it uses stdio.
"""

import sys
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

server = MCPServer("asking")


class Sure(BaseModel):
    yes: bool


async def confirm(amount: int) -> Elicit[Sure]:
    return Elicit(f"Refund {amount}?", Sure)


async def refund(amount: int, sure: Annotated[Sure, Resolve(confirm)]) -> str:
    return f"refunded {amount}: {sure.yes}"


for name in "refund", "approved", "daily", "budget", "judged":
    server.tool(name=name)(refund)

if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run("stdio")
