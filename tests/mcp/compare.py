"""Compares two recordings of one session: compare.py WITHOUT WITH.

Each message of one must be a message of the other, equal member for member, with the same text of
each number. The order is not compared, because servers answer concurrent requests in any order.
Whether changes of the list of tools are announced is not compared: a gateway announces its own.
"""

import json
import sys
from collections import Counter


def messages(file):
    """Returns every line as canonical text, with the text of each number."""
    with open(file, encoding="utf-8") as lines:
        read = [json.loads(line, parse_int=spelt, parse_float=spelt) for line in lines]
    for message in read:
        result = message.get("result")
        capabilities = result.get("capabilities") if isinstance(result, dict) else None
        (capabilities or {}).get("tools", {}).pop("listChanged", None)
    return Counter(json.dumps(message, sort_keys=True) for message in read), len(read)


def spelt(number):
    return f"number {number}"


def main():
    (without, count), (with_gateway, _) = messages(sys.argv[1]), messages(sys.argv[2])
    for name, difference in ("only without", without - with_gateway), ("only with", with_gateway - without):
        for message in difference:
            print(f"{name} the gateway: {message[:1000]}", file=sys.stderr)
    if without != with_gateway or count < 5:
        sys.exit(f"{sys.argv[1]} and {sys.argv[2]} differ ({count} messages)")
    print(f"ok - {count} messages are equal member for member")


main()
