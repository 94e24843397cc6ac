"""Django's sessions in its cache for Redis, and what else that cache does: an application at two nodes."""

import django
from check import URLS, done, holds, refused, same
from django.conf import settings

# Another user at the first node.
OPERATOR = URLS[0].replace(":secret-of-tests@", "operator:secret-of-operators@")

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    SESSION_COOKIE_AGE=600,
    CACHES={
        name: {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": url}
        for name, url in zip(("default", "two", "three", "operator"), [*URLS, OPERATOR])
    },
)
django.setup()

from django.contrib.sessions.backends.cache import KEY_PREFIX, SessionStore  # noqa: E402
from django.core.cache import caches  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

meanwhile = []


def login(request, name):
    request.session.cycle_key()
    request.session["name"] = name
    return HttpResponse("welcome")


def me(request):
    return HttpResponse(request.session.get("name", "nobody"))


def logout(request):
    request.session.flush()
    return HttpResponse("bye")


def slow(request):
    request.session["name"] = "late"
    # While it is under way, the user logs out elsewhere.
    meanwhile.pop()()
    return HttpResponse("done")


urlpatterns = [path("login/<name>", login), path("me", me), path("logout", logout), path("slow", slow)]


def over_http():
    browser, elsewhere = Client(), Client()
    same("a stranger", browser.get("/me").content, b"nobody")
    same("logs in", browser.get("/login/ada").content, b"welcome")
    same("logged in", browser.get("/me").content, b"ada")
    first = browser.cookies["sessionid"].value
    same("logs in again", browser.get("/login/ada").content, b"welcome")
    second = browser.cookies["sessionid"].value
    holds("under another id", first != second)
    elsewhere.cookies["sessionid"] = second
    with override_settings(SESSION_CACHE_ALIAS="two"):
        same("read elsewhere", elsewhere.get("/me").content, b"ada")
        elsewhere.cookies["sessionid"] = first
        same("the old id", elsewhere.get("/me").content, b"nobody")
    holds("its deadline", 595 <= caches["three"]._cache.get_client().ttl(f":1:{KEY_PREFIX}{second}") <= 600)

    def logs_out():
        with override_settings(SESSION_CACHE_ALIAS="two"):
            elsewhere.cookies["sessionid"] = second
            same("logs out elsewhere", elsewhere.get("/logout").content, b"bye")

    meanwhile.append(logs_out)
    # Django looks before it saves, finds that there is none, and says so itself.
    late = browser.get("/slow")
    holds("a late save", late.status_code == 400)
    browser.cookies["sessionid"] = second
    same("stays out", browser.get("/me").content, b"nobody")


def the_store():
    one = SessionStore()
    one["cart"] = 3
    one.save()
    same("exists", [one.exists(one.session_key), one.exists("nothing")], [True, False])
    again = SessionStore(one.session_key)
    same("loaded", again["cart"], 3)
    key = one.session_key
    again.cycle_key()
    same("under another key", [SessionStore(again.session_key).get("cart"), SessionStore(key).get("cart")], [3, None])
    again.delete()
    same("deleted", SessionStore(again.session_key).get("cart"), None)


def the_cache():
    one, two = caches["default"], caches["two"]
    same("add", [one.add("dj:a", [1, 2], 60), two.add("dj:a", 3, 60)], [True, False])
    same("get", two.get("dj:a"), [1, 2])
    one.set("dj:n", 5, 60)
    same("incr", [two.incr("dj:n"), one.decr("dj:n", 3), two.get("dj:n")], [6, 3, 3])
    same("touch", [one.touch("dj:n", 100), two.touch("nothing", 5)], [True, False])
    same("get_many", two.get_many(["dj:a", "dj:n", "nothing"]), {"dj:a": [1, 2], "dj:n": 3})
    same("has_key", ["dj:a" in two, "nothing" in two], [True, False])
    same("get_or_set", two.get_or_set("dj:g", lambda: "made", 60), "made")
    one.delete_many(["dj:a", "dj:g"])
    same("deleted", [two.get("dj:a"), one.delete("dj:n"), one.delete("dj:n")], [None, True, False])
    one.set_many({"dj:1": 1, "dj:2": 2}, 60)
    same("set_many", two.get_many(["dj:1", "dj:2"]), {"dj:1": 1, "dj:2": 2})
    # To end everything is for another user, whom no application has to be.
    refused("clear", Exception, "this user has no permissions to run the 'flushdb' command", one.clear)
    same("clear by an operator", [caches["operator"].clear(), two.get("dj:1"), one.get("dj:2")], [True, None, None])


over_http()
the_store()
the_cache()
done(f"Django {django.__version__}")
