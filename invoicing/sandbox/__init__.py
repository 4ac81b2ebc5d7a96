"""A stateful stand-in for Stripe's API: a real HTTP server on loopback, for demos and tests.

It refuses what Stripe refuses, replays what Stripe replays, finalises by a clock of its own, and fails when told to.
It imports nothing from the rest of the product, so that it cannot share its mistakes.
"""

from invoicing.sandbox.server import Sandbox

__all__ = ["Sandbox"]
