"""redis-py, in both protocols, with and without asyncio."""

import asyncio
import datetime
import time

import redis
import redis.asyncio
from check import URLS, done, holds, refused, same, until


def strings(a, b):
    """Through one node and another."""
    same("SET", a.set(f"{own}1", "one", ex=100), True)
    same("GET elsewhere", b.get(f"{own}1"), "one")
    holds("TTL", 95 <= b.ttl(f"{own}1") <= 100)
    same("SET XX GET", b.set(f"{own}1", "two", xx=True, get=True, keepttl=True), "one")
    holds("the deadline is kept", 90_000 <= a.pttl(f"{own}1") <= 100_000)
    same("SET NX of what is there", a.set(f"{own}1", "three", nx=True), None)
    same("SET NX of what is not", a.set(f"{own}2", "2", nx=True, px=50_000), True)
    in_an_hour = datetime.datetime.now() + datetime.timedelta(hours=1)
    same("SET EXAT", a.set(f"{own}3", "three", exat=in_an_hour), True)
    holds("EXPIRETIME", abs(a.expiretime(f"{own}3") - in_an_hour.timestamp()) <= 2)
    same("MGET", b.mget(f"{own}1", "nothing", f"{own}2"), ["two", None, "2"])
    same("MSET", a.mset({f"{own}4": "4", f"{own}5": "5"}), True)
    same("INCR", [b.incr(f"{own}4"), a.incrby(f"{own}4", 10), b.decr(f"{own}4")], [5, 15, 14])
    refused("INCR of a word", redis.ResponseError, "value is not an integer", lambda: a.incr(f"{own}1"))
    same("APPEND", b.append(f"{own}5", "55"), 3)
    same("STRLEN", a.strlen(f"{own}5"), 3)
    same("GETRANGE", a.getrange(f"{own}5", 1, -1), "55")
    same("SETRANGE", a.setrange(f"{own}5", 1, "67"), 3)
    same("GETEX", b.getex(f"{own}5", ex=7), "567")
    holds("its deadline", a.ttl(f"{own}5") in (6, 7))
    same("GETSET", a.execute_command("GETSET", f"{own}5", "new"), "567")
    same("GETDEL", b.getdel(f"{own}5"), "new")
    same("GET of what was deleted", a.get(f"{own}5"), None)
    same("SETEX", a.execute_command("SETEX", f"{own}6", 60, "six"), True)
    same("PSETEX", a.execute_command("PSETEX", f"{own}7", 60_000, "seven"), True)
    same("SETNX", a.execute_command("SETNX", f"{own}7", "other"), False)
    odd = bytes(range(256)).decode("latin-1") + "\r\n$-1\r\n"
    same("any bytes", (a.set(f"{own}ö\r\n", odd), b.get(f"{own}ö\r\n")), (True, odd))
    same("MSETNX", a.msetnx({f"{own}7": "other"}), False)
    same("INCRBYFLOAT", a.incrbyfloat(f"{own}4", 0.5), 14.5)


def hashes(a, b):
    same("HSET", a.hset(f"{own}h", mapping={"user": "alice", "cart": "3"}), 2)
    same("HSET again", a.hset(f"{own}h", "user", "bob"), 0)
    until("the fields elsewhere", lambda: b.hgetall(f"{own}h") == {"user": "bob", "cart": "3"})
    same("HINCRBY", [b.hincrby(f"{own}h", "cart", 4), a.hincrbyfloat(f"{own}h", "cart", 0.5)], [7, 7.5])
    same("HMGET", b.hmget(f"{own}h", "cart", "none", "user"), ["7.5", None, "bob"])
    same("HSETNX", [a.hsetnx(f"{own}h", "user", "eve"), a.hexists(f"{own}h", "user")], [False, True])
    same("HKEYS, HVALS, HLEN", [b.hkeys(f"{own}h"), b.hvals(f"{own}h"), b.hlen(f"{own}h")], [["cart", "user"], ["7.5", "bob"], 2])
    same("HSCAN", dict(a.hscan_iter(f"{own}h", match="us*")), {"user": "bob"})
    refused("GET of a hash", redis.ResponseError, "WRONGTYPE Operation", lambda: b.get(f"{own}h"))
    payload = redis.Redis.from_url(URLS[0]).dump(f"{own}h")
    holds("RESTORE", b.restore(f"{own}r", 50_000, payload))
    same("RENAME", [a.rename(f"{own}r", f"{own}s"), b.hget(f"{own}s", "user")], [True, "bob"])
    same("HDEL", [a.hdel(f"{own}h", "user", "cart", "none"), b.exists(f"{own}h")], [2, 0])


def sets(a, b):
    same("SADD", [a.sadd(f"{own}t", "s1", "s2"), a.sadd(f"{own}t", "s2", "s3")], [2, 1])
    until("the members elsewhere", lambda: b.smembers(f"{own}t") == {"s1", "s2", "s3"})
    same("SISMEMBER, SCARD", [b.sismember(f"{own}t", "s1"), b.scard(f"{own}t"), b.smismember(f"{own}t", ["s1", "x"])], [1, 3, [1, 0]])
    same("SSCAN", sorted(b.sscan_iter(f"{own}t", match="s[12]")), ["s1", "s2"])
    same("SREM", [b.srem(f"{own}t", "s1", "s2", "s3", "x"), b.exists(f"{own}t")], [3, 0])
    same("ZADD", [a.zadd(f"{own}z", {"s1": 1, "s2": 2.5, "s3": 3}), a.zadd(f"{own}z", {"s1": 0.5}, lt=True, ch=True)], [3, 1])
    until("the scores elsewhere", lambda: b.zscore(f"{own}z", "s1") == 0.5)
    same("ZRANGEBYSCORE", b.zrangebyscore(f"{own}z", 0, "(3", withscores=True, score_cast_func=float), pairs(("s1", 0.5), ("s2", 2.5)))
    same("ZREVRANGEBYSCORE", b.zrevrangebyscore(f"{own}z", "+inf", "-inf", start=0, num=2), ["s3", "s2"])
    same("ZRANGE", a.zrange(f"{own}z", 0, -1), ["s1", "s2", "s3"])
    same("ZINCRBY, ZCOUNT", [a.zincrby(f"{own}z", 5, "s1"), a.zcount(f"{own}z", 3, 10)], [5.5, 2])
    same("ZREM", [a.zrem(f"{own}z", "s1", "s2"), a.zremrangebyscore(f"{own}z", 0, 9), a.zcard(f"{own}z")], [2, 1, 0])


def pairs(*all):
    """As the library has them in either protocol."""
    return [list(pair) for pair in all] if own == "py3:" else list(all)


def fields_that_expire(a, b):
    a.hset(f"{own}e", mapping={"user": "alice", "cart": "3"})
    same("HEXPIRE", [a.hexpire(f"{own}e", 1000, "cart", "none"), a.hpexpire(f"{own}e", 20, "user")], [[1, -2], [1]])
    holds("HTTL", 990 <= a.httl(f"{own}e", "cart")[0] <= 1000)
    until("a field to expire", lambda: b.hgetall(f"{own}e") == {"cart": "3"})
    same("HPERSIST", [b.hpersist(f"{own}e", "cart"), b.httl(f"{own}e", "cart")], [[1], [-1]])


def events(a, b):
    """What the nodes tell of keys: a session that ended, and one that expired."""
    holds("notify-keyspace-events", set("Egx") <= set(a.config_get("notify-keyspace-events")["notify-keyspace-events"]))
    listening = redis.Redis.from_url(URLS[2], decode_responses=True)
    with listening.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe("__keyevent@0__:*")
        until("a subscription", lambda: listening.pubsub_numpat() == 1)
        a.set(f"{own}x", "x", px=50)
        a.set(f"{own}y", "y")
        b.delete(f"{own}y")
        heard = set()

        def all_heard():
            message = pubsub.get_message(timeout=1)
            # Of others' keys, too.
            if message and message["data"] in (f"{own}x", f"{own}y"):
                heard.add((message["channel"].split(":", 1)[1], message["data"]))
            return len(heard) == 2

        until("both events", all_heard)
        same("events", heard, {("expired", f"{own}x"), ("del", f"{own}y")})
    listening.close()


def keys(a, b):
    same("EXISTS", b.exists(f"{own}1", f"{own}2", "nothing"), 2)
    same("TOUCH", b.touch(f"{own}1", "nothing"), 1)
    same("TYPE", [a.type(f"{own}1"), a.type("nothing")], ["string", "none"])
    same("EXPIRE", [a.expire(f"{own}1", 50), a.expire(f"{own}1", 60, nx=True), a.expire("nothing", 5)], [True, False, False])
    same("PEXPIRE GT", [b.pexpire(f"{own}1", 70_000, gt=True), b.pexpire(f"{own}1", 1, gt=True)], [True, False])
    same("EXPIREAT", a.expireat(f"{own}1", int(time.time()) + 30), True)
    holds("TTL", 25 <= b.ttl(f"{own}1") <= 30)
    same("PERSIST", a.persist(f"{own}1"), True)
    same("TTL of nothing", a.ttl("nothing"), -2)
    same("OBJECT", [a.object("encoding", f"{own}4"), a.object("refcount", f"{own}4")], ["embstr", 1])
    same("UNLINK", b.unlink(f"{own}6", "nothing"), 1)
    same("DEL", a.delete(f"{own}1", f"{own}2", "nothing"), 2)
    same("EXPIRE of what was deleted", b.expire(f"{own}1", 100), False)
    same("GET of what was deleted", b.get(f"{own}1"), None)
    a.set(f"{own}8", "8", px=20)
    until("a key to expire", lambda: b.get(f"{own}8") is None)
    found = lambda: sorted(b.scan_iter(match=f"{own}[37]", count=10))
    same("SCAN", found(), [f"{own}3", f"{own}7"])
    same("KEYS", sorted(b.keys(f"{own}[37]")), [f"{own}3", f"{own}7"])
    holds("DBSIZE", b.dbsize() >= 2)


def server(a, name):
    same("PING", a.ping(), True)
    same("ECHO", a.echo("hello"), "hello")
    same("CLIENT GETNAME", a.client_getname(), name)
    info = a.client_info()
    same("its library", (info["lib-name"].split("(")[0], info["lib-ver"]), ("redis-py", redis.__version__))
    holds("CLIENT LIST", any(other["id"] == str(a.client_id()) for other in a.client_list()))
    holds("INFO", a.info()["redis_version"].startswith("7.") and "uptime_in_seconds" in a.info("server"))
    holds("CONFIG GET", "maxmemory" in a.config_get("maxmemory*"))
    holds("COMMAND", a.command()["get"]["arity"] == 2 and a.command_count() == len(a.command()))
    same("COMMAND GETKEYS", a.command_getkeys("mset", "a", 1, "b", 2), ["a", "b"])
    holds("TIME", abs(a.time()[0] - time.time()) < 5)
    same("WAIT", a.wait(1, 10), 0)
    refused("what is no command", redis.ResponseError, "unknown command", lambda: a.execute_command("NOSUCH", 1))
    refused("SELECT of what is not", redis.ResponseError, "DB index is out of range", lambda: a.select(99))


def pipelines(a, b):
    pipe = a.pipeline(transaction=False)
    for number in range(200):
        pipe.set(f"{own}p{number}", number, ex=60).get(f"{own}p{number}").expire(f"{own}p{number}", 70)
    same("a pipeline", pipe.execute(), [part for number in range(200) for part in (True, str(number), True)])
    same("elsewhere", b.mget([f"{own}p{number}" for number in range(200)]), [str(number) for number in range(200)])
    pipe = b.pipeline(transaction=False).set(f"{own}w", "word").incr(f"{own}w").get(f"{own}w")
    answers = pipe.execute(raise_on_error=False)
    holds("an error amid a pipeline", (answers[0], answers[2]) == (True, "word") and isinstance(answers[1], redis.ResponseError))

    def transaction():
        # As the library does it by itself: MULTI and EXEC around it. Keys with one {tag} lie in one slot.
        same("a transaction", a.pipeline().set(f"{{{own}}}1", "1").incr(f"{{{own}}}1").execute(), [True, 2])

    transaction()

    def watched():
        with a.pipeline() as pipe:
            pipe.watch(f"{{{own}}}1")
            b.set(f"{{{own}}}1", "5")
            pipe.multi()
            pipe.set(f"{{{own}}}1", "6")
            refused("what others changed", redis.WatchError, "Watched variable changed", pipe.execute)

    watched()
    a.lock(f"{own}lock", timeout=10).__enter__().release()


def failures(a):
    number = a.client_id()
    other = redis.Redis.from_url(URLS[0], decode_responses=True)
    same("CLIENT KILL", other.client_kill_filter(_id=number), 1)
    # The library finds its connection closed, and opens another one.
    holds("after it", a.client_id() != number)
    wrong = redis.Redis.from_url(URLS[0].replace(":secret-of-tests@", ":wrong-password@"))
    refused("a wrong password", redis.AuthenticationError, "invalid username-password pair", wrong.ping)
    none = redis.Redis.from_url(URLS[0].replace(":secret-of-tests@", ""))
    refused("no password", redis.AuthenticationError, "", none.ping)
    refused("a value too large", redis.ResponseError, "string exceeds maximum allowed size", lambda: a.set(f"{own}large", "x" * (1 << 17)))
    same("and goes on", a.ping(), True)


def late_saves(a, b):
    a.set(f"{own}s", "session")
    same("read elsewhere", b.get(f"{own}s"), "session")
    same("logged out", a.delete(f"{own}s"), 1)
    refused("a late save", redis.ResponseError, "late save: ", lambda: b.set(f"{own}s", "session", ex=60))
    same("stays out", [a.get(f"{own}s"), b.exists(f"{own}s"), b.expire(f"{own}s", 60)], [None, 0, False])
    # Whoever looked for it may begin it.
    same("begun anew", (b.get(f"{own}s"), b.set(f"{own}s", "new")), (None, True))
    same("it is another one", a.getdel(f"{own}s"), "new")
    same("NX begins anew", b.set(f"{own}s", "newer", nx=True), True)
    # However soon after the logout they come.
    for number in range(200):
        late = f"{own}late{number}"
        a.set(late, "session", ex=60)
        same("read elsewhere", b.get(late), "session")
        a.delete(late)
        refused("a late save at once", redis.ResponseError, "late save: ", lambda: b.set(late, "session", ex=60))


def channels(a, protocol):
    """Heard at one node what is published at another."""
    listening = redis.Redis.from_url(URLS[2], protocol=protocol, decode_responses=True)
    with listening.pubsub() as pubsub:
        pubsub.subscribe(f"{own}news")
        pubsub.psubscribe(f"{own}n*")
        same("SUBSCRIBE", pubsub.get_message(timeout=60)["data"], 1)
        same("PSUBSCRIBE", pubsub.get_message(timeout=60)["data"], 2)
        told = heard(lambda: a.publish(f"{own}news", "hi"), pubsub)
        same("PUBLISH", (told["type"], told["channel"], told["data"]), ("message", f"{own}news", "hi"))
        told = pubsub.get_message(timeout=60)
        same("a pattern", (told["type"], told["pattern"], told["data"]), ("pmessage", f"{own}n*", "hi"))
        same("PUBSUB CHANNELS", listening.pubsub_channels(f"{own}*"), [f"{own}news"])
        same("PUBSUB NUMSUB", listening.pubsub_numsub(f"{own}news"), [(f"{own}news", 1)])
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        until("the end of it", lambda: not (pubsub.get_message(timeout=1) or pubsub.subscribed))
    listening.close()


def heard(publish, pubsub):
    """The next message; what was lost is published again."""
    told = []

    def is_heard():
        publish()
        told.append(pubsub.get_message(timeout=1))
        return told[-1]

    until("a message", is_heard)
    return told[-1]


async def with_asyncio(protocol):
    client = redis.asyncio.Redis.from_url(URLS[2], protocol=protocol, decode_responses=True)
    await client.set(f"{own}c", "0")
    await asyncio.gather(*(client.incr(f"{own}c") for _ in range(50)))
    same("INCR, fifty at a time", await client.get(f"{own}c"), "50")
    async with client.pipeline(transaction=False) as pipe:
        same("a pipeline", await pipe.set(f"{own}c", "c").get(f"{own}c").execute(), [True, "c"])
    await client.aclose()


for protocol in (2, 3):
    # What the keys of this round begin with.
    own = f"py{protocol}:"
    # One connection each, as a worker has it.
    a, b = (
        redis.Redis.from_url(url, protocol=protocol, decode_responses=True, client_name="tests", max_connections=1)
        for url in URLS[:2]
    )
    strings(a, b)
    hashes(a, b)
    sets(a, b)
    fields_that_expire(a, b)
    events(a, b)
    keys(a, b)
    server(a, "tests")
    pipelines(a, b)
    failures(a)
    late_saves(a, b)
    channels(a, protocol)
    asyncio.run(with_asyncio(protocol))
done(f"redis-py {redis.__version__}")
