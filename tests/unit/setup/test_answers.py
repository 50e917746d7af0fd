"""Every question: its defaults, what it takes, and why it refuses the rest."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from glorytun.errors import SetupError
from glorytun_setup.answers import read_toml, settle, written
from glorytun_setup.invitation import encode
from glorytun_setup.model import Manager, Role, Through, WanState
from glorytun_setup.questions import QUESTIONS, Known, Question
from glorytun_setup.words import ThroughAnswer, WanAnswer
from tests.unit.setup.samples import (
    CLIENT,
    INVITATION,
    KEY,
    LAN0,
    NOW,
    SERVER,
    WAN0,
    WAN1,
    WAN2,
    facts,
    gateway,
    known,
    link,
    settled,
)

PLANNED = {"server": "vpn.example.net", "key": KEY.hex()}
HOST = facts(
    WAN0,
    WAN1,
    LAN0,
    link("nm0", "10.20.0.1/24", manager=Manager.NETWORK_MANAGER, gateway4=gateway("10.20.0.2")),
    link("np0", "10.21.0.1/24", manager=Manager.NETPLAN, gateway4=gateway("10.21.0.2")),
    link("if0", "10.22.0.1/24", manager=Manager.IFUPDOWN, gateway4=gateway("10.22.0.2")),
    link("no0", "10.23.0.1/24", manager=Manager.NOBODY, gateway4=gateway("10.23.0.2")),
    link("wg0", "10.24.0.1/24", is_physical=False, gateway4=gateway("10.24.0.2")),
    tunnels=("old",),
    udp_ports=frozenset({53, 68, 5000}),
    tables=frozenset({100, 254, 255}),
    rule_priorities=frozenset({0, 5210, 32766}),
)
"""All kinds of interfaces."""


def question(name: str) -> Question:
    """By its name."""
    return next(each for each in QUESTIONS if each.name == name)


def asked(name: str, role: str = "client") -> Known:
    """What is known when a question is asked."""
    found = known(HOST)
    texts = {**PLANNED, "role": role, "wans": "wan0 wan1", "addresses": "10.77.0.2/30"}
    for each in QUESTIONS:
        if each.name == name:
            return found
        if each.applies(found):
            text = texts.get(each.name, "") or each.default(found)
            found = found.and_also(each.name, each.answer(text, found))
    raise AssertionError(name)


LONG_KEY = KEY.hex() + "00"
WRONG = [
    ("role", "", "'' is not one of client, server"),
    ("role", "both", "'both' is not one of client, server"),
    ("role", "clients", "'clients' is not one of client, server"),
    ("role", "c s", "'c s' is not one of client, server"),
    ("name", "", "'' is no name for a tunnel: 1 to 15 letters"),
    ("name", "a-name-that-is-long", "'a-name-that-is-long' is no name for a tunnel"),
    ("name", "tun 0", "'tun 0' is no name"),
    ("name", "tun/0", "'tun/0' is no name"),
    ("name", "..", "'..' is no name"),
    ("name", ".hidden", "'.hidden' is no name"),
    ("name", "-n", "'-n' is no name"),
    ("name", "tun*", "'tun*' is no name"),
    ("name", "tun%i", "'tun%i' is no name"),
    ("name", "tun@0", "'tun@0' is no name"),
    ("name", "tün0", "'tün0' is no name"),
    ("name", "all", "'all' is no name"),
    ("name", "default", "'default' is no name"),
    ("name", "lo", "'lo' is no name"),
    ("name", "17", "'17' is no name for a tunnel: networkd takes a number alone for none"),
    ("name", "wan0", "'wan0' is another network device of this host"),
    ("name", "old", "'old' is a tunnel already: `glorytun-setup edit old` changes it"),
    ("invitation", "glorytun", "this is no invitation, which begins with glorytun1-"),
    ("invitation", "hello", "this is no invitation"),
    ("invitation", KEY.hex(), "this is no invitation"),
    ("invitation", "glorytun2-AAAA", "this is an invitation of another version"),
    ("invitation", "glorytun1-", "this is an invitation of which a part is missing"),
    ("invitation", encode(INVITATION)[:-4], "this is an invitation of which a part is missing"),
    ("invitation", encode(replace(INVITATION, expires_at=NOW)), "has expired: ask for another"),
    ("server", "none", "'none' names no server, and a client needs one"),
    ("server", "not a name", "'not a name' is neither an address nor a name"),
    ("server", "vpn..example", "'vpn..example' is neither an address nor a name"),
    ("server", "-vpn", "'-vpn' is neither an address nor a name"),
    ("server", "vpn.example.net:5000", "'vpn.example.net:5000' is no IPv4 or IPv6 address"),
    ("server", "192.0.2.300", "'192.0.2.300' is no IPv4 or IPv6 address"),
    ("server", "0.0.0.0", "'0.0.0.0' is not the address of one host"),
    ("server", "ff02::1", "'ff02::1' is not the address of one host"),
    ("server", "10.9.1.1", "'10.9.1.1' is an address of this host itself"),
    ("server", "2001:DB8:1:0::1", "'2001:DB8:1:0::1' is an address of this host itself"),
    ("port", "", "'' is no port: a number from 1 to 65535"),
    ("port", "0", "'0' is no port"),
    ("port", "65536", "'65536' is no port"),
    ("port", "-1", "'-1' is no port"),
    ("port", "5000/udp", "'5000/udp' is no port"),
    ("port@server", "53", "'53' is taken by another program: `ss -ulpn` shows which"),
    ("key", "", "this is no key, which has 64 hex digits: it has no hex digits"),
    ("key", "keep", "this can't be kept, since there is none yet"),
    ("key", "abc", "this is no key, which has 64 hex digits: it has 3 hex digits"),
    ("key", LONG_KEY, "this is no key, which has 64 hex digits: it has 66 hex digits"),
    (
        "key",
        KEY.hex()[:-1] + "g",
        "this is no key, which has 64 hex digits: character 64 is no hex",
    ),
    ("key", "\udcff" * 64, "this is no key, which has 64 hex digits: character 1 is no hex digit"),
    ("key", encode(INVITATION), "this is an invitation: `glorytun-setup join` takes it"),
    ("wans", "", "'' names no interface"),
    ("wans", ",", "',' names no interface"),
    ("wans", "eth9", "eth9 is no interface of this host, which has if0, lan0, nm0, no0, np0, wan0"),
    ("wans", "wan0 wan0:backup", "'wan0 wan0:backup' names an interface twice"),
    ("wans", "wan0:main", "'wan0:main' has 'main', where up or backup may be"),
    ("wans", "wan0:10mbit", "'wan0:10mbit' has '10mbit', where up or backup may be"),
    ("wans", "wan0:fast/slow", "'wan0:fast/slow' has 'fast', which is no rate"),
    ("wans", "wan0:1/50mbit", "has '1', which is 1 bytes/s, and must be 0"),
    ("wans", "lan0", "lan0 has no default route: /etc/systemd/network/20-lan0.network needs"),
    ("wans", "wg0", "wg0 is no link to the Internet"),
    ("wans", "wan0 nm0", "nm0 is configured by NetworkManager: give it to networkd first"),
    ("wans", "wan0 np0", "np0 is configured by netplan"),
    ("wans", "wan0 if0", "if0 is configured by /etc/network/interfaces"),
    ("wans", "wan0 no0", "can't be used: no0 is not configured by networkd: it needs a file"),
    ("addresses", "", "'' names no address"),
    ("addresses", "10.77.0.1", "'10.77.0.1' has '10.77.0.1', which is no address with its prefix"),
    ("addresses", "10.77.0.1/33", "has '10.77.0.1/33', which is no address with its prefix"),
    ("addresses", "fe80::1%wan0/64", "has 'fe80::1%wan0/64', which is no address"),
    ("addresses", "10.77.0.1/30 10.78.0.1/30", "names several of one family"),
    ("addresses", "10.77.0.0/30", "10.77.0.0/30 is the network's own address"),
    ("addresses", "10.77.0.3/30", "10.77.0.3/30 is the network's broadcast address"),
    ("addresses", "10.77.0.1/32", "leaves no room for the other end: write 10.77.0.1/30"),
    ("addresses", "fd77::1/128", "leaves no room for the other end: write fd77::1/64"),
    ("addresses", "fd77::/64", "fd77::/64 is the network's own address"),
    ("addresses", "127.0.0.5/30", "127.0.0.5/30 is not the address of one host"),
    ("addresses", "224.0.0.5/30", "is not the address of one host"),
    ("addresses", "169.254.1.1/30", "is not the address of one host"),
    ("addresses", "fe80::1/64", "is not the address of one host"),
    ("addresses", "250.1.1.1/30", "is in a part of IPv4 that nobody may use"),
    ("addresses", "192.168.7.9/30", "overlaps 192.168.7.0/24, to which this host has a route"),
    ("addresses", "10.0.0.1/8", "overlaps 10.9.1.0/24, to which this host has a route"),
    ("addresses", "2001:db8:1::9/127", "overlaps 2001:db8:1::/64, to which this host has a route"),
    ("peers", "10.77.0.2", "10.77.0.2 is this end's address"),
    ("peers", "10.77.0.9", "10.77.0.9 is not in 10.77.0.0/30, the network of this end's address"),
    ("peers", "10.77.0.3", "10.77.0.3 is not the address of one host"),
    ("peers", "fd77::1", "'fd77::1' doesn't name one address for each of this end's"),
    ("peers", "10.77.0.1/30", "'10.77.0.1/30' has '10.77.0.1/30', which is no address"),
    ("through", "", "'' is neither everything nor nothing nor a network"),
    ("through", "all", "'all' has 'all', which is no network as 10.0.0.0/8"),
    ("through", "10.0.0.1/8", "has '10.0.0.1/8', which is no network: write 10.0.0.0/8"),
    ("through", "10.0.0.0/33", "has '10.0.0.0/33', which is no network as 10.0.0.0/8 or"),
    ("through", "10.0.0.0/8 10.1.0.0/16", "names 10.0.0.0/8 and 10.1.0.0/16, which overlap"),
    ("through", "224.0.0.0/4", "names 224.0.0.0/4, which no tunnel can carry"),
    ("through", "fe80::/64", "names fe80::/64, which no tunnel can carry"),
    ("share@server", "maybe", "'maybe' is not one of yes, no"),
    ("behind@server", "somewhere", "'somewhere' has 'somewhere', which is no network"),
    ("behind@server", "0.0.0.0/0", "names 0.0.0.0/0, and a server can't send everything"),
    ("behind@server", "fd00::/8 ::/0", "overlap"),
    ("server", "127.0.0.1", "is not the address of another host"),
    ("server", "::1", "is not the address of another host"),
    ("server", "fe80::1", "needs its interface: fe80::1%wan0"),
    ("addresses", "0.0.0.1/8", "is in a part of IPv4 that nobody may use"),
    ("addresses", "127.0.0.1/8", "is not the address of one host"),
    ("addresses", "::1/64", "is not the address of one host"),
    ("addresses", "ff02::1/64", "is not the address of one host"),
    ("addresses", "224.0.0.1/3", "is not the address of one host"),
    ("masquerade", "sometimes", "'sometimes' is not one of yes, no"),
    ("local_port", "68", "'68' is taken by another program"),
    ("table", "254", "'254' is in use: `ip route show table all` shows by what"),
    ("table", "98", "'98' is in use"),
    ("table", "main", "'main' is no whole number from 1 to 2147483647"),
    ("table", "0", "'0' must be from 1 to 2147483647"),
    ("priority", "5205", "'5205' is too near to the rule of priority 5210: `ip rule` lists them"),
    ("priority", "32001", "'32001' must be from 1 to 32000"),
]


@pytest.mark.parametrize(("where", "text", "complaint"), WRONG)
def test_a_wrong_answer_is_explained(where: str, text: str, complaint: str) -> None:
    name, _, role = where.partition("@")
    each, before = question(name), asked(name, role or "client")
    with pytest.raises(ValueError, match=r"\w") as caught:
        each.answer(text, before)
    said = each.complaint(text, caught.value)
    assert complaint in said
    assert "\n" not in said
    if each.is_secret and len(text) > 8:
        assert text not in said


def test_the_table_is_long_and_names_every_question() -> None:
    assert len(WRONG) >= 60
    assert {where.partition("@")[0] for where, _, _ in WRONG} == {each.name for each in QUESTIONS}


RIGHT = [
    ("role", "s", Role.SERVER),
    ("name", " tun0 ", "tun0"),
    ("name", "0-a_b.c", "0-a_b.c"),
    ("invitation", "none", None),
    ("invitation", encode(INVITATION), INVITATION),
    ("server", "vpn.example.net", "vpn.example.net"),
    ("server", "192.168.1.1", "192.168.1.1"),
    ("server", "2001:db8::1", "2001:db8::1"),
    ("server@server", "none", ""),
    ("server@server", "10.9.1.1", "10.9.1.1"),
    # Taken here, but it is the server's.
    ("port", "53", 53),
    ("port@server", "443", 443),
    ("key", "new", "new"),
    ("key", KEY.hex().upper(), KEY),
    ("key", f" {KEY.hex()}\n", KEY),
    ("wans", "wan1", (WanAnswer(interface="wan1"),)),
    (
        "wans",
        "wan0, wan1:backup:10mbit/auto",
        (
            WanAnswer(interface="wan0"),
            WanAnswer(interface="wan1", state=WanState.BACKUP, rate_tx=1_250_000),
        ),
    ),
    ("addresses", "10.77.0.1/31", (ip_interface("10.77.0.1/31"),)),
    (
        "addresses",
        "fd77::2/64,10.77.0.1/30",
        tuple(map(ip_interface, ("10.77.0.1/30", "fd77::2/64"))),
    ),
    ("through", "e", ThroughAnswer(through=Through.EVERYTHING)),
    ("through", "nothing", ThroughAnswer(through=Through.NOTHING)),
    (
        "through",
        "10.0.0.0/8",
        ThroughAnswer(through=Through.NETWORKS, networks=(ip_network("10.0.0.0/8"),)),
    ),
    ("share@server", "y", True),
    ("share@server", "no", False),
    ("behind@server", "none", ()),
    ("behind@server", "192.168.9.0/24", (ip_network("192.168.9.0/24"),)),
    ("local_port", "5001", 5001),
    ("table", "101", 101),
    ("priority", "5211", 5211),
]


@pytest.mark.parametrize(("where", "text", "value"), RIGHT)
def test_a_right_answer_is_taken(where: str, text: str, value: object) -> None:
    name, _, role = where.partition("@")
    assert question(name).answer(text, asked(name, role or "client")) == value


@pytest.mark.parametrize(("where", "text", "value"), RIGHT)
def test_what_is_written_is_read_again(where: str, text: str, value: object) -> None:
    name, _, role = where.partition("@")
    each = question(name)
    if not each.is_secret:
        assert each.answer(each.write(value), asked(name, role or "client")) == value


def test_a_client_needs_two_answers_alone() -> None:
    """All else has a default."""
    found = settled(CLIENT, PLANNED).given
    assert (found["role"], found["name"], found["port"]) == (Role.CLIENT, "tun0", 5000)
    assert found["wans"] == (WanAnswer(interface="wan0"), WanAnswer(interface="wan1"))
    assert found["through"].through is Through.EVERYTHING
    for name in PLANNED:
        with pytest.raises(SetupError, match="there is no answer, and none to propose"):
            settled(CLIENT, {key: text for key, text in PLANNED.items() if key != name})


def test_a_server_needs_to_say_only_that_it_is_one() -> None:
    found = settled(SERVER, {"role": "server"})
    assert found.key == KEY
    assert found.given["server"] == "203.0.113.9"
    assert found.given["share"]


def test_both_ends_propose_addresses_that_fit() -> None:
    """They follow from the key, whatever else differs."""
    server = settled(facts(WAN0), {"role": "server"}).given
    client = settled(CLIENT, PLANNED).given
    assert [own.ip for own in server["addresses"]] == list(client["peers"])
    assert [own.ip for own in client["addresses"]] == list(server["peers"])
    other = settled(CLIENT, {**PLANNED, "key": bytes(32).hex()}).given
    assert other["addresses"] != client["addresses"]


def test_proposals_avoid_what_is_taken() -> None:
    first = settled(CLIENT, PLANNED).given["addresses"][0]
    busy = facts(
        WAN0,
        WAN1,
        link("tun0", str(first), is_physical=False),
        tunnels=("tun1",),
        udp_ports=frozenset({5000, 5001}),
        tables=frozenset({7102}),
        rule_priorities=frozenset({7105}),
    )
    found = settled(busy, PLANNED).given
    assert (found["name"], found["local_port"]) == ("tun2", 5002)
    assert (found["table"], found["priority"]) == (7110, 7110)
    assert not found["addresses"][0].network.overlaps(first.network)


LARGE = ("10.0.0.1/8", "100.64.0.1/10", "172.16.0.1/12")


def test_proposals_come_from_elsewhere_where_all_of_a_range_is_taken() -> None:
    taken = facts(WAN0, link("lan0", *LARGE))
    (own,) = settled(taken, PLANNED).given["addresses"]
    assert own.network.subnet_of(ip_network("192.168.0.0/16"))


def test_where_all_ranges_are_taken_nothing_is_proposed() -> None:
    taken = facts(WAN0, link("lan0", *LARGE, "192.168.0.1/16"))
    with pytest.raises(SetupError, match="addresses: there is no answer, and none to propose"):
        settled(taken, PLANNED)


def test_the_interface_in_use_comes_first() -> None:
    first = replace(WAN2, gateway4=gateway("100.64.0.1", metric=10))
    assert [wan.interface for wan in settled(facts(WAN0, LAN0, first), PLANNED).given["wans"]] == [
        "wan2",
        "wan0",
    ]


def test_an_invitation_answers_most() -> None:
    found = settled(CLIENT, {"invitation": encode(INVITATION)})
    assert found.given["server"] == "vpn.example.net"
    assert found.given["port"] == 5001
    assert found.key == KEY
    assert list(map(str, found.given["addresses"])) == ["10.77.0.2/30", "fd77::2/64"]
    assert list(map(str, found.given["peers"])) == ["10.77.0.1", "fd77::1"]
    assert found.given["through"].through is Through.EVERYTHING


@pytest.mark.parametrize(
    ("shares4", "shares6", "through"),
    [(True, False, "0.0.0.0/0"), (False, True, "::/0"), (False, False, "nothing")],
)
def test_what_the_server_shares_goes_through(shares4: bool, shares6: bool, through: str) -> None:
    """The rest would end there."""
    line = encode(replace(INVITATION, shares4=shares4, shares6=shares6))
    assert dict(written(settled(CLIENT, {"invitation": line})))["through"] == through


def test_an_own_answer_counts_more_than_the_invitation() -> None:
    texts = {"invitation": encode(INVITATION), "server": "198.51.100.1"}
    assert settled(CLIENT, texts).given["server"] == "198.51.100.1"


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(SetupError, match="wans: a server has no such thing"):
        settled(SERVER, {"role": "server", "wans": "eth0"})
    with pytest.raises(SetupError, match="share: a client has no such thing"):
        settled(CLIENT, {**PLANNED, "share": "yes"})


def test_answers_written_down_lead_to_the_same_values_without_the_key() -> None:
    found = settled(CLIENT, {**PLANNED, "wans": "wan1 wan0:backup:1mbit/2mbit"})
    texts = dict(written(found))
    assert KEY.hex() not in str(texts)
    again = settle(texts, replace(known(CLIENT), old_key=KEY))
    assert again.key == KEY
    values = {name: value for name, value in again.given.items() if name != "key"}
    assert values == {name: value for name, value in found.given.items() if name != "key"}


def test_what_is_known_never_shows_a_key() -> None:
    found = replace(settled(CLIENT, PLANNED), old_key=KEY)
    assert KEY.hex() not in repr(found)
    assert repr(KEY) not in repr(found)


# TOML.


def test_toml_has_texts_numbers_lists_and_truth() -> None:
    text = 'role = "server"\nport = 443\nshare = false\nbehind = ["10.0.0.0/8", "fd00::/8"]\n'
    assert read_toml(text) == {
        "role": "server",
        "port": "443",
        "share": "no",
        "behind": "10.0.0.0/8 fd00::/8",
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("role", "this is no TOML: "),
        ("role = 'client'\nrole = 'server'", "this is no TOML: "),
        ("rule = 'client'", "there is no question 'rule': did you mean role?"),
        ("zzz = 1", "there is no question 'zzz'"),
        (f"key = '{KEY.hex()}'", "key is a secret, which has no place here: key_file names the"),
        ("invitation = 'x'", "invitation is a secret"),
        ("port = 1.5", "port: neither a text, a number, true, false, nor a list of texts"),
        ("wans = [1]", "wans: neither"),
        ("[wans]\na = 1", "wans: neither"),
    ],
)
def test_wrong_toml_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(SetupError, match=r"\w") as caught:
        read_toml(text)
    assert str(caught.value).startswith(complaint)
    assert KEY.hex() not in str(caught.value)


def test_each_question_has_its_own_words() -> None:
    options = [each.option for each in QUESTIONS]
    assert len(set(options)) == len(options)
    assert all(each.help.endswith(".") and not each.prompt.endswith(":") for each in QUESTIONS)
    assert question("key").option == "--key-file"
    assert question("local_port").option == "--local-port"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"port = {'1' * 5000}", "this is no TOML with answers"),
        (f"port = 0x{'f' * 5000}", "port: neither a text, a number"),
        (f"wans = {'[' * 3000}{']' * 3000}", "this is no TOML"),
        (f"wans = {'[' * 60000}", "this is no TOML"),
    ],
    ids=["digits", "hexadecimal", "brackets", "open brackets"],
)
def test_monstrous_toml_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        read_toml(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = ""', "name: '' is no name for a tunnel"),
        ("wans = []", "wans: '' names no interface"),
        ("through = []", "through: '' is neither everything nor nothing"),
    ],
)
def test_an_empty_answer_is_not_the_default(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        settled(CLIENT, {**PLANNED, **read_toml(text)})
