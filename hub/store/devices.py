"""Devices and the tokens they join with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from hub.refusal import Refused
from hub.store.tables import assignments, devices, inventories, tokens


def add_token(db: Connection, token_id: str, secret_sha256: str, group: str | None, now: int, expires_at: int) -> None:
    """Remember a join token by the hash of its secret."""
    db.execute(
        tokens.insert().values(
            id=token_id,
            secret_sha256=secret_sha256,
            group_name=group,
            created_at=now,
            expires_at=expires_at,
            used_by=None,
        )
    )


def find_token(db: Connection, token_id: str) -> Row[Any] | None:
    """The token of this id, used or not."""
    return db.execute(select(tokens).where(tokens.c.id == token_id)).one_or_none()


def use_token(db: Connection, token_id: str, device: str) -> None:
    """Mark a token as used by the device that was made with it."""
    db.execute(update(tokens).where(tokens.c.id == token_id).values(used_by=device))


def add_device(db: Connection, device: Mapping[str, object]) -> None:
    """Make a device. Raises Refused 409 when another living device has its name."""
    if find_living(db, str(device["name"])) is not None:
        raise Refused(
            409, f"device '{device['name']}' is enrolled already: choose another name, or revoke it", field="name"
        )
    db.execute(devices.insert().values(**device))


def find_device(db: Connection, device: str) -> Row[Any] | None:
    """The device of this id, revoked or not."""
    return db.execute(select(devices).where(devices.c.id == device)).one_or_none()


def find_living(db: Connection, name_or_id: str) -> Row[Any] | None:
    """The device of this name or id that is not revoked. An id is never a legal name, so this is not ambiguous."""
    named = (devices.c.name == name_or_id) | (devices.c.id == name_or_id)
    return db.execute(select(devices).where(named, devices.c.revoked_at.is_(None))).one_or_none()


def living(db: Connection, name_or_id: str) -> Row[Any]:
    """The same, or Refused 404."""
    found = find_living(db, name_or_id)
    if found is None:
        raise Refused(404, f"device '{name_or_id}' is not enrolled: `edgepack devices` lists those that are")
    return found


def every_device(db: Connection) -> list[Row[Any]]:
    """Every living device with its assignment and inventory, by name."""
    whole = devices.outerjoin(assignments, assignments.c.device == devices.c.id).outerjoin(
        inventories, inventories.c.device == devices.c.id
    )
    chosen = select(devices, assignments.c.sequence, assignments.c.pipelines, inventories.c.inventory).select_from(
        whole
    )
    return list(db.execute(chosen.where(devices.c.revoked_at.is_(None)).order_by(devices.c.name)))


def names_of(db: Connection) -> dict[str, str]:
    """Id to name of every device there ever was: rows of a revoked one keep their name."""
    return {device: name for device, name in db.execute(select(devices.c.id, devices.c.name))}


def ids_of(db: Connection, name_or_id: str) -> list[str]:
    """Every device, revoked ones too, that has or had this name or id."""
    named = (devices.c.name == name_or_id) | (devices.c.id == name_or_id)
    return list(db.execute(select(devices.c.id).where(named)).scalars())


def revoke(db: Connection, device: str, now: int) -> None:
    """Refuse a device's secret from now on. Its rows in the log stay."""
    db.execute(update(devices).where(devices.c.id == device).values(revoked_at=now))


def save_seen(db: Connection, seen: Mapping[str, float]) -> None:
    """Write when devices were last heard of, many at a time."""
    change = update(devices).where(devices.c.id == bindparam("device")).values(last_seen=bindparam("at"))
    db.execute(change, [{"device": device, "at": at} for device, at in seen.items()])


def save_inventory(db: Connection, device: str, inventory: object, now: int) -> None:
    """Keep the newest inventory of a device."""
    db.execute(inventories.delete().where(inventories.c.device == device))
    db.execute(inventories.insert().values(device=device, received_at=now, inventory=inventory))
