// An application as many are: Express, its sessions in Redis by express-session, connect-redis and node-redis. Nothing in
// it knows of Annulus but the address. Run it by ./run.
//
//     node app.mjs REDIS_URL

import express from 'express';
import session from 'express-session';
import { RedisStore } from 'connect-redis';
import { createClient } from 'redis';

// While the host's node is away requests fail at once, and a load balancer goes to another host.
const client = createClient({ url: process.argv[2], disableOfflineQueue: true });
client.on('error', (error) => console.error(`redis: ${error.message}`));
await client.connect();

const app = express();
const errors = [];
// Requests that are under way: they go on when /release is asked for.
const slow = [];

app.get('/slow', (_request, response) => response.send(`${slow.length} under way`));
app.post('/release', (_request, response) => {
  slow.splice(0).forEach((go) => go());
  response.send('released');
});
app.get('/errors', (_request, response) => response.send(errors.splice(0).join('; ') || 'none'));

app.use(session({
  store: new RedisStore({ client, ttl: 1800 }),
  secret: 'of the example',
  resave: false,
  saveUninitialized: false,
}));

app.post('/login/:name', (request, response, next) => {
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.user = request.params.name;
    request.session.visits = 0;
    response.send(`welcome, ${request.params.name}`);
  });
});

app.get('/me', (request, response) => {
  if (!request.session.user) return response.status(401).send('nobody');
  request.session.visits += 1;
  response.send(`${request.session.user}, visit ${request.session.visits}`);
});

app.post('/logout', (request, response, next) => {
  request.session.destroy((error) => (error ? next(error) : response.send('bye')));
});

// Takes long, and changes the session: the middleware saves it when the answer is sent.
app.post('/slow', (request, response) => {
  slow.push(() => {
    request.session.visits += 100;
    response.send(`done for ${request.session.user}`);
  });
});

// The same, but saves by itself before it answers, and so can tell.
app.post('/slow-and-save', (request, response, next) => {
  slow.push(() => {
    request.session.visits += 100;
    request.session.save((error) => (error ? next(error) : response.send('saved')));
  });
});

// A late save comes here, as every error of the store does: from the middleware after the answer is on its way, so that there
// is nothing to be done but to write it down.
app.use((error, _request, response, _next) => {
  const isLate = error.message.startsWith('ERR late save');
  console.error(error.message);
  errors.push(`${isLate ? 'late save' : error.message}, ${response.headersSent ? 'after' : 'before'} the answer`);
  if (response.headersSent) return;
  response.status(isLate ? 401 : 503).send(isLate ? 'you have logged out' : 'no sessions now');
});

const server = app.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
