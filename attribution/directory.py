"""Who owned what at an instant.

A `Directory` is an immutable snapshot of the whole history up to `as_of`: asked about any instant up to then, it
answers the same for ever (A7). A refresh makes a new snapshot and shares what did not change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from attribution.assets import Account, IpAssignment, NumberAssignment, Tenant, to_microseconds
from attribution.network_table import NetworkTable
from attribution.number_columns import NumberColumns, NumberOwners
from attribution.number_table import NumberTable
from schemas.binary import Integers
from schemas.network import Address, parsed

__all__ = ["Account", "Changes", "Directory", "IpAssignment", "NumberAssignment", "NumberOwners", "Tenant"]


@dataclass(frozen=True, slots=True)
class Changes:
    """Rows that were made or ended, in the state they have now; a row with a known id replaces it."""

    accounts: Collection[Account] = ()
    tenants: Collection[Tenant] = ()
    numbers: Collection[NumberAssignment] = ()
    ips: Collection[IpAssignment] = ()


class Directory:
    """A snapshot of accounts, tenants and assignments, complete up to `as_of`; made by `of` and `refreshed`."""

    __slots__ = ("_accounts", "_networks", "_numbers", "_tenants", "as_of")

    def __init__(
        self,
        as_of: datetime,
        accounts: Mapping[int, Account],
        tenants: _Tenants,
        numbers: NumberTable,
        networks: NetworkTable,
    ) -> None:
        self.as_of = as_of
        self._accounts = accounts
        self._tenants = tenants
        self._numbers = numbers
        self._networks = networks

    @classmethod
    def of(cls, as_of: datetime, rows: Changes, numbers: NumberColumns | None = None) -> Directory:
        """A snapshot of rows; numbers by the million come as `numbers`, in any order, which this sorts."""
        columns = (numbers or NumberColumns.of(())).sort()
        empty = cls(as_of, {}, _Tenants({}, {}, {}), NumberTable.of(columns), NetworkTable())
        return empty.refreshed(rows, as_of)

    def refreshed(self, changes: Changes, as_of: datetime, numbers: NumberColumns | None = None) -> Directory:
        """The snapshot as of a later fence, with what was made or ended since this one; cheap, nothing is re-sorted.

        Changed numbers may come as `numbers` as well, in any order.
        """
        accounts = self._accounts
        if changes.accounts:
            accounts = {**accounts, **{account.id: account for account in changes.accounts}}
        table = self._numbers.changed(changes.numbers)
        return Directory(
            as_of,
            accounts,
            self._tenants.changed(changes.tenants),
            table if numbers is None else table.changed_by(numbers),
            self._networks.changed(changes.ips),
        )

    def number_in_force(self, number: str, at: datetime) -> NumberAssignment | None:
        """The assignment of an E.164 number at the instant; None where nobody owned it, or it is no E.164 number."""
        return self._numbers.in_force(number, to_microseconds(at))

    def ip_in_force(self, address: Address, at: datetime) -> IpAssignment | None:
        """The longest prefix of the address among the assignments in force at the instant (A3)."""
        return self._networks.in_force(parsed(address), to_microseconds(at))

    def numbers_in_force(self, numbers: Sequence[str], at: Integers) -> NumberOwners:
        """Whose each E.164 number is at its instant (microseconds), as `number_in_force` says; quick for thousands.

        Raises:
            ValueError: there are not as many instants as numbers.
        """
        return self._numbers.in_force_each(numbers, at)

    def ips_in_force(self, addresses: Sequence[Address], at: Integers) -> list[IpAssignment | None]:
        """What `ip_in_force` says of each address at its instant (microseconds); quick for thousands.

        Raises:
            ValueError: there are not as many instants as addresses.
        """
        return self._networks.in_force_each(addresses, at)

    def tenant_named(self, account_id: int, code: str, at: datetime) -> Tenant | None:
        """The account's tenant with exactly this Account ID, if it existed at the instant (A5)."""
        tenant = self._tenants.by_code.get((account_id, code))
        return tenant if tenant is not None and tenant.existed(at) else None

    def near_match(self, account_id: int, code: str, at: datetime) -> Tenant | None:
        """A tenant of the account that was probably meant: only case or surrounding punctuation differs (A5)."""
        meant = self._tenants.by_likeness.get((account_id, _likeness(code)), ())
        return next((tenant for tenant in meant if tenant.existed(at) and tenant.code != code), None)

    def account(self, account_id: int) -> Account:
        """The account with this id.

        Raises:
            KeyError: no account has it.
        """
        return self._accounts[account_id]

    def accounts(self) -> Collection[Account]:
        """All accounts."""
        return self._accounts.values()

    def tenant(self, tenant_id: int) -> Tenant:
        """The tenant with this id, ended or not.

        Raises:
            KeyError: no tenant has it.
        """
        return self._tenants.by_id[tenant_id]


@dataclass(frozen=True, slots=True)
class _Tenants:
    by_id: Mapping[int, Tenant]
    by_code: Mapping[tuple[int, str], Tenant]
    by_likeness: Mapping[tuple[int, str], tuple[Tenant, ...]]

    def changed(self, tenants: Iterable[Tenant]) -> _Tenants:
        changes = {tenant.id: tenant for tenant in tenants}
        if not changes:
            return self
        by_likeness = dict(self.by_likeness)
        for tenant in changes.values():
            key = tenant.account_id, _likeness(tenant.code)
            others = [other for other in by_likeness.get(key, ()) if other.id != tenant.id]
            by_likeness[key] = tuple(sorted((*others, tenant), key=lambda each: each.id))
        by_code = {(tenant.account_id, tenant.code): tenant for tenant in changes.values()}
        return _Tenants({**self.by_id, **changes}, {**self.by_code, **by_code}, by_likeness)


def _likeness(code: str) -> str:
    """An Account ID without regard to case and to what surrounds it: quotes, brackets, blanks, a full stop."""
    folded = code.casefold()
    inner = [position for position, character in enumerate(folded) if character.isalnum()]
    return folded[inner[0] : inner[-1] + 1] if inner else ""
