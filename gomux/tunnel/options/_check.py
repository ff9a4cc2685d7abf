# -*- test-case-name: gomux.test.tunnel.test_config -*-
# Copyright (c) The gomux for Twisted authors.
# See LICENSE for details.

"""
What C{--check} says: a plan in plain words; and what a reload changes for peers.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from gomux._wire.peerrules import EVERYBODY, PeerRules
from gomux._wire.request import UNNAMED
from gomux.tunnel._plan import Item, Plan, withoutSecrets
from gomux.tunnel.options._config import SHARES
from gomux.tunnel.options._limits import optionName


def describe(plan: Plan) -> str:
    """
    @return: what a process with a plan does, in lines.
    """
    lines = ["Everything is valid. This process would:"]
    lines += [f"  - {_item(plan, item)}" for item in plan.items]
    served = {item.service for item in plan.of("target", "factory")}
    if None not in served:
        lines.append("  - refuse streams without a service")
    if plan.accessLog is not None:
        where = plan.accessLog if plan.accessLog != "-" else "the standard output"
        lines.append(f"  - write the access log to {where}")
    lines += ["Peers:", *(f"  - {line}" for line in _peers(plan))]
    lines += _strict(plan)
    limits = _limits(plan)
    if limits:
        lines += ["Limits that are not the default:", *limits]
    if plan.files:
        lines.append(f"SIGHUP reads {' and '.join(plan.files)} again.")
    else:
        lines.append("SIGHUP has no effect.")
    lines += [f"Warning: {text}." for text in plan.keyring.warnings]
    return "\n".join(lines)


def changedPeers(old: Plan, new: Plan) -> list[str]:
    """
    @return: what peers may use with a new plan, in lines, where an old one differs.
    """
    before = set(_peers(old))
    return [line for line in _peers(new) if line not in before]


def _item(plan: Plan, item: Item) -> str:
    shown = withoutSecrets(item.string)
    service = (
        "without a service"
        if item.service is None
        else f"for the service {item.service}"
    )
    if item.option == "listen":
        return f"accept muxes at {shown}"
    if item.option == "connect":
        key = "" if item.peer is None else f", with the key of {item.peer}"
        return f"keep a mux connected to {shown}{key}"
    if item.option == "forward":
        whom = "any peer" if item.peer is None else item.peer
        return f"accept connections at {shown}, as streams to {whom} {service}"
    if item.option == "target":
        return f"connect the peers' streams {service} to {shown}"
    if item.option == "factory":
        return f"serve the peers' streams {service} with {shown}"
    return f"listen at {shown} for --{item.option}"


def _peers(plan: Plan) -> list[str]:
    names = sorted(plan.keyring.names)
    everybody = plan.peers.get(EVERYBODY, PeerRules())
    lines = []
    for name in names:
        rules = plan.peers.get(name, PeerRules())
        parts = [] if rules.services is None else [_mayUse(rules)]
        if isinstance(plan.strict.strict, tuple) and name in plan.strict.strict:
            parts.append("strict mode")
        parts += _shares(rules)
        lines.append(
            f"{name or 'the peer'}: {'; '.join(parts) or 'no rules of its own'}"
        )
    parts = [_mayUse(everybody), *_shares(everybody)]
    lines.append(f"where a peer has no rule of its own: {'; '.join(parts)}")
    return lines


def _shares(rules: PeerRules) -> list[str]:
    values = ((name, getattr(rules, field)) for name, field in SHARES.items())
    return [f"{name} {value}" for name, value in values if value is not None]


def _mayUse(rules: PeerRules) -> str:
    if rules.services is None:
        return "may use everything"
    if not rules.services:
        return "may use nothing"
    words = (
        "streams without a service" if service == UNNAMED else service
        for service in sorted(rules.services)
    )
    return f"may use {', '.join(words)}"


def _strict(plan: Plan) -> list[str]:
    strict = plan.strict
    if not strict.strict:
        return []
    whom = "all peers" if strict.strict is True else "the peers named above"
    parts = [f"Strict mode is for {whom}"]
    if strict.context:
        parts.append("with a context")
    if strict.clock:
        parts.append("with a check of the peers' clocks")
    if strict.allowSelf:
        parts.append("and this process may connect to itself")
    return [f"{', '.join(parts)}."]


def _limits(plan: Plan) -> list[str]:
    lines = []
    kinds: tuple[Any, ...] = (plan.limits, plan.muxLimits)
    for limits in kinds:
        for field in fields(limits):
            value = getattr(limits, field.name)
            if value != field.default:
                lines.append(f"  - {optionName(field.name)} {value}")
    return lines
