"""The resource /mail/accounts: connect a mailbox, look at it, disconnect it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daemon.account.listing import Form
from daemon.account.views import AccountView
from daemon.sharing.rules import Act

from .answers import Account, AccountDetail, Accounts, Connected, ConnectedAccount, Done, OneAccount
from .operation import Call, Operation
from .schemas import ConnectBody
from .schemas_sharing import ChangeBody
from .services import AccountsService

_TAG = "Accounts"
_COLLECTION = "/mail/accounts"
_ITEM = "/mail/accounts/{account_id}"
_NOT_FOUND = "There is no such account, or it is not yours: which of the two is never told."


def _account(view: AccountView) -> bytes:
    return Account.of(view).model_dump_json().encode()


def _accounts(shown: Iterable[bytes]) -> bytes:
    """The document of `Accounts`, from its members' own documents."""
    before, _, after = Accounts(accounts=[]).model_dump_json().encode().partition(b"[")
    return b"".join((before, b"[", b",".join(shown), after))


def operations(service: AccountsService) -> Sequence[Operation]:
    """The operations of this resource."""
    listing = service.listing(Form(_account, _accounts))

    async def list_accounts(call: Call) -> bytes:
        return await listing.show(call.user.id)

    async def connect_account(call: Call) -> Connected:
        view = await service.connect(call.caller, call.body_as(ConnectBody).to_request(), call.told)
        return Connected(account=ConnectedAccount(id=view.id, email=view.email, sync_status=view.sync_status))

    async def get_account(call: Call) -> OneAccount:
        return OneAccount(account=AccountDetail.of(await service.get_account(call.user, call.ids["account_id"])))

    async def change_account(call: Call) -> OneAccount:
        account_id, body = call.ids["account_id"], call.body_as(ChangeBody)
        view = await service.changes.change(call.caller, account_id, body.to_request(), call.told)
        return OneAccount(account=AccountDetail.of(view))

    async def disconnect_account(call: Call) -> Done:
        await service.disconnect(call.caller, call.ids["account_id"])
        return Done()

    return (
        Operation("GET", _COLLECTION, "listAccounts", "List connected accounts", _TAG, list_accounts, Accounts),
        Operation(
            "POST", _COLLECTION, "connectAccount", "Connect an account", _TAG, connect_account, Connected,
            body=ConnectBody, limited=True,
            description="Both servers are asked to accept the credentials before anything is saved; that may take up "
            "to a minute. The password is stored sealed and is never answered.",
            refusals={
                400: "`validation_failed`, or the servers did not accept what was given: `imap_auth_failed`, "
                "`imap_connect_failed`, `imap_tls_failed`, `smtp_auth_failed`, `smtp_connect_failed`, "
                "`smtp_tls_failed`, `host_not_allowed`, `password_login_unsupported`.",
                403: "`plan_limit_exceeded`: the account quota of your plan is reached.",
                409: "`already_connected`: this email address is already connected.",
            },
        ),
        Operation(
            "GET", _ITEM, "getAccount", "Look at one account", _TAG, get_account, OneAccount, act=Act.SEE,
            description="With what it is doing, why, and how far each folder is.",
            refusals={404: _NOT_FOUND},
        ),
        Operation(
            "PATCH", _ITEM, "changeAccount", "Change an account", _TAG, change_account, OneAccount, body=ChangeBody,
            act=Act.CHANGE,
            also={"with new credentials": Act.CHANGE_CREDENTIALS, "with `is_default`": Act.MAKE_DEFAULT},
            limited=True,
            description="All of it or nothing. New credentials are verified at both servers before they replace the "
            "old ones. The rate told is that of changes, with new credentials that of attempts to connect.",
            refusals={
                400: "`validation_failed`, or the servers did not accept the credentials, as when connecting.",
                403: "`not_allowed`: your role in the account does not allow that.",
                404: _NOT_FOUND,
                409: "`already_connected`: the new mailbox is; `changed_meanwhile`: the credentials were.",
            },
        ),
        Operation(
            "DELETE", _ITEM, "disconnectAccount", "Disconnect an account", _TAG, disconnect_account, Done,
            act=Act.DISCONNECT,
            description="Stops its synchronisation. Mail already synchronised is kept.",
            refusals={
                403: "`campaigns_active`: your only remaining default account, while campaigns are active.",
                404: _NOT_FOUND,
            },
        ),
    )
