// express-session's stores of connect-redis: with node-redis, and its version 8 with ioredis.

import { promisify } from 'node:util';
import { RedisStore } from 'connect-redis';
import { RedisStore as RedisStore8 } from 'connect-redis-8';
import { Redis } from 'ioredis';
import { createClient } from 'redis';
import { done, holds, refused, same, urls } from './check.mjs';

// The store's calls, as the middleware makes them.
const calls = (store) => Object.fromEntries(
  ['get', 'set', 'touch', 'destroy', 'length', 'ids', 'all', 'clear'].map((it) => [it, promisify(store[it].bind(store))]),
);
const session = (more) => ({ cookie: { originalMaxAge: null, httpOnly: true, path: '/' }, ...more });

async function check(one, two, ttlOf) {
  same('none', await one.get('id'), null);
  await one.set('id', session({ user: 'ada' }));
  same('elsewhere', (await two.get('id')).user, 'ada');
  await two.touch('id', session());
  let ttl = await ttlOf('sess:id');
  holds('its deadline', ttl >= 595 && ttl <= 600);
  const expires = new Date(Date.now() + 100_000).toISOString();
  await two.set('id', session({ user: 'ada', cookie: { expires } }));
  ttl = await ttlOf('sess:id');
  holds('as its cookie says', ttl >= 95 && ttl <= 100);
  same('length', [await two.length(), await two.ids()], [1, ['id']]);
  same('all', (await two.all()).map((it) => it.user), ['ada']);
  await one.destroy('id');
  same('logged out', [await one.get('id'), await two.touch('id', session())], [null, null]);
  // On the other node, whose connection has not asked since.
  await refused('a late save', 'ERR late save: ', () => two.set('id', session({ user: 'ada' })));
  same('stays out', [await one.get('id'), await two.get('id')], [null, null]);
  await one.set('other', session());
  await one.clear();
  same('cleared', await two.get('other'), null);
}

const nodeRedis = await Promise.all(urls.map((url) => createClient({ url }).on('error', () => {}).connect()));
const stores = nodeRedis.map((client) => calls(new RedisStore({ client, ttl: 600 })));
await check(stores[0], stores[1], (key) => nodeRedis[2].ttl(key));

const io = urls.map((url) => new Redis(url));
const stores8 = io.map((client) => calls(new RedisStore8({ client, ttl: 600, prefix: 'sess8:' })));
await check(stores8[0], stores8[1], (key) => io[2].ttl(key.replace('sess:', 'sess8:')));
done('connect-redis 9.0.0, 8.1.0');
