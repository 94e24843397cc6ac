"""Flask-Session, in both of its formats: an application at two nodes, without a server of HTTP between."""

import flask
import flask_session
import redis
from check import URLS, done, holds, refused, same


def application(url, form):
    app = flask.Flask(__name__)
    client = redis.Redis.from_url(url)
    app.config.update(
        SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_SERIALIZATION_FORMAT=form, PERMANENT_SESSION_LIFETIME=600
    )
    flask_session.Session(app)
    # So that errors come out here.
    app.testing = True

    @app.get("/put/<name>/<value>")
    def put(name, value):
        flask.session[name] = value
        return "put"

    @app.get("/take/<name>")
    def take(name):
        return str(flask.session.get(name))

    @app.get("/again")
    def again():
        app.session_interface.regenerate(flask.session)
        return "again"

    @app.get("/end")
    def end():
        flask.session.clear()
        flask.session.pop("_permanent", None)
        return "ended"

    @app.get("/slow")
    def slow():
        flask.session["name"] = "late"
        # While it is under way, the user logs out elsewhere.
        same("logged out", app.meanwhile(), "ended")
        return "done"

    return app


for form in ("msgpack", "json"):
    one, two = application(URLS[0], form), application(URLS[1], form)
    browser, other = one.test_client(), two.test_client()

    def get(client, path):
        return client.get(path).text

    def with_cookie(client, sid):
        client.set_cookie("session", sid)
        return client

    same("saved", get(browser, "/put/name/ada"), "put")
    sid = browser.get_cookie("session").value
    same("read elsewhere", get(with_cookie(other, sid), "/take/name"), "ada")
    ttl = redis.Redis.from_url(URLS[2]).ttl(f"session:{sid}")
    holds("its deadline", 595 <= ttl <= 600)
    same("another id", get(browser, "/again"), "again")
    new = browser.get_cookie("session").value
    holds("it is another one", new != sid)
    same("the session came with it", get(with_cookie(other, new), "/take/name"), "ada")
    same("the old one is none", get(with_cookie(two.test_client(), sid), "/take/name"), "None")
    two.meanwhile = lambda: get(browser, "/end")
    refused("a late save", redis.ResponseError, "late save: ", lambda: other.get("/slow"))
    same("stays out", get(with_cookie(two.test_client(), new), "/take/name"), "None")
    same("here, too", get(with_cookie(one.test_client(), new), "/take/name"), "None")
done("Flask-Session 0.8.0")
