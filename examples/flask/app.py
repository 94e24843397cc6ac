"""An application as many are: Flask, its sessions in Redis by Flask-Session and redis-py. Nothing in it knows of Annulus
but the address. Run it by ./run.

    python app.py REDIS_URL
"""

import sys
import threading

import flask
import flask_session
import redis
from werkzeug.serving import make_server

app = flask.Flask(__name__)
app.config.update(
    SESSION_TYPE="redis",
    SESSION_REDIS=redis.Redis.from_url(sys.argv[1]),
    SESSION_SERIALIZATION_FORMAT="json",
    # Requests that only read write nothing.
    SESSION_REFRESH_EACH_REQUEST=False,
)
flask_session.Session(app)

errors = []
# Requests that are under way: they go on when /release is asked for.
slow = []


@app.get("/slow")
def under_way():
    return f"{len(slow)} under way"


@app.post("/release")
def release():
    while slow:
        slow.pop().set()
    return "released"


@app.get("/errors")
def tell_errors():
    told, errors[:] = "; ".join(errors) or "none", []
    return told


@app.post("/login/<name>")
def login(name):
    flask.session.clear()
    app.session_interface.regenerate(flask.session)
    flask.session.update(user=name, visits=0)
    return f"welcome, {name}"


@app.get("/me")
def me():
    if "user" not in flask.session:
        return "nobody", 401
    flask.session["visits"] += 1
    return f"{flask.session['user']}, visit {flask.session['visits']}"


@app.post("/logout")
def logout():
    flask.session.clear()
    # It marks an empty session as permanent or not, so that it is not empty any more: what is left is no session.
    flask.session.pop("_permanent", None)
    return "bye"


@app.post("/slow")
def take_long():
    """Takes long, and changes the session: it is saved when the answer is made."""
    go = threading.Event()
    slow.append(go)
    go.wait(30)
    flask.session["visits"] += 100
    return f"done for {flask.session['user']}"


@app.errorhandler(500)
def failed(error):
    """Flask-Session saves before anything is sent: a late save takes the place of the answer. An empty session deletes
    the cookie, and is not saved again."""
    cause = getattr(error, "original_exception", error)
    is_late = "late save" in str(cause)
    errors.append("late save" if is_late else f"{type(cause).__name__}: {cause}")
    if not is_late:
        return "no sessions now", 503
    flask.session.clear()
    flask.session.pop("_permanent", None)
    return "you have logged out", 401


server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"http://127.0.0.1:{server.port}", flush=True)
server.serve_forever()
