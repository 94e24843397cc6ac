// node-redis, in both protocols.

import { createClient, ErrorReply } from 'redis';
import { done, holds, refused, same, until, urls } from './check.mjs';

async function strings(a, b) {
  same('SET', await a.set(`${own}1`, 'one', { expiration: { type: 'EX', value: 100 } }), 'OK');
  same('GET elsewhere', await b.get(`${own}1`), 'one');
  const ttl = await b.ttl(`${own}1`);
  holds('TTL', ttl >= 95 && ttl <= 100);
  same('SET XX GET', await b.set(`${own}1`, 'two', { condition: 'XX', GET: true, expiration: 'KEEPTTL' }), 'one');
  same('SET NX', await a.set(`${own}1`, 'three', { condition: 'NX' }), null);
  same('SET PX', await a.set(`${own}2`, '2', { expiration: { type: 'PX', value: 50_000 } }), 'OK');
  same('setEx', await a.setEx(`${own}3`, 60, 'three'), 'OK');
  same('mGet', await b.mGet([`${own}1`, 'nothing', `${own}2`]), ['two', null, '2']);
  same('mSet', await a.mSet({ [`${own}4`]: '4', [`${own}5`]: '5' }), 'OK');
  same('incr', [await b.incr(`${own}4`), await a.incrBy(`${own}4`, 10), await b.decr(`${own}4`)], [5, 15, 14]);
  await refused('incr of a word', 'ERR value is not an integer', () => a.incr(`${own}1`));
  same('append', [await b.append(`${own}5`, '55'), await a.strLen(`${own}5`), await a.getRange(`${own}5`, 1, -1)], [3, 3, '55']);
  same('getEx', await b.getEx(`${own}5`, { type: 'EX', value: 7 }), '555');
  same('getDel', [await b.getDel(`${own}5`), await a.get(`${own}5`)], ['555', null]);
  const odd = '\u0000ö\r\n$-1\r\n';
  same('any text', [await a.set(`${own}6`, odd), await b.get(`${own}6`)], ['OK', odd]);
}

async function sets(a, b) {
  same('sAdd', [await a.sAdd(`${own}t`, ['s1', 's2']), await a.sAdd(`${own}t`, 's2')], [2, 0]);
  await until('the members elsewhere', async () => (await b.sCard(`${own}t`)) === 2);
  same('sMembers, sIsMember', [[...(await b.sMembers(`${own}t`))], await b.sIsMember(`${own}t`, 's1')], [['s1', 's2'], 1]);
  same('sRem', [await b.sRem(`${own}t`, ['s1', 's2']), await b.exists(`${own}t`)], [2, 0]);
  same('zAdd', await a.zAdd(`${own}z`, [{ score: 1, value: 's1' }, { score: 2.5, value: 's2' }]), 2);
  await until('the scores elsewhere', async () => (await b.zCard(`${own}z`)) === 2);
  same('zRangeByScoreWithScores', await b.zRangeByScoreWithScores(`${own}z`, '(1', 3), [{ value: 's2', score: 2.5 }]);
  same('zScore, zRem', [await b.zScore(`${own}z`, 's2'), await a.zRem(`${own}z`, ['s1', 's2'])], [2.5, 2]);
}

async function hashes(a, b) {
  same('hSet', [await a.hSet(`${own}h`, { user: 'alice', cart: '3' }), await a.hSet(`${own}h`, 'user', 'bob')], [2, 0]);
  await until('the fields elsewhere', async () => (await b.hGet(`${own}h`, 'user')) === 'bob');
  same('hIncrBy', [await b.hIncrBy(`${own}h`, 'cart', 4), await a.hIncrByFloat(`${own}h`, 'cart', 0.5)], [7, '7.5']);
  same('hmGet', await b.hmGet(`${own}h`, ['cart', 'none', 'user']), ['7.5', null, 'bob']);
  same('hGetAll', { ...(await b.hGetAll(`${own}h`)) }, { cart: '7.5', user: 'bob' });
  same('hKeys', [await a.hKeys(`${own}h`), await a.hLen(`${own}h`), await a.hExists(`${own}h`, 'none')], [['cart', 'user'], 2, 0]);
  same('hDel', [await a.hDel(`${own}h`, ['user', 'cart']), await b.exists(`${own}h`)], [2, 0]);
}

async function keys(a, b) {
  same('exists', await b.exists([`${own}1`, `${own}2`, 'nothing']), 2);
  same('touch', await b.touch([`${own}1`, 'nothing']), 1);
  same('type', [await a.type(`${own}1`), await a.type('nothing')], ['string', 'none']);
  same('expire', [await a.expire(`${own}1`, 50), await a.expire(`${own}1`, 60, 'NX'), await a.expire('nothing', 5)], [1, 0, 0]);
  same('pExpire', [await b.pExpire(`${own}1`, 70_000, 'GT'), await b.persist(`${own}1`)], [1, 1]);
  same('objectEncoding', await a.objectEncoding(`${own}4`), 'int');
  same('unlink', await b.unlink([`${own}3`, 'nothing']), 1);
  same('del', [await a.del([`${own}1`, `${own}2`]), await b.get(`${own}1`), await b.expire(`${own}1`, 9)], [2, null, 0]);
  const found = [];
  for await (const some of a.scanIterator({ MATCH: `${own}[46]`, COUNT: 10 })) found.push(...some);
  same('scanIterator', found.sort(), [`${own}4`, `${own}6`]);
}

async function server(a) {
  same('ping', [await a.ping(), await a.ping('you'), await a.echo('hello')], ['PONG', 'you', 'hello']);
  same('clientGetName', await a.clientGetName(), 'tests');
  const info = await a.clientInfo();
  same('clientInfo', [info.name, info.libName], ['tests', 'node-redis']);
  holds('clientList', (await a.clientList()).some((other) => other.id === info.id));
  holds('info', (await a.info('server')).includes('redis_version:7.'));
  same('configGet', Object.keys(await a.configGet('maxmemory')), ['maxmemory']);
  holds('command', (await a.command()).some((it) => it.name === 'get' && it.arity === 2));
  holds('time', Math.abs(Number((await a.time())[0] ?? (await a.time())) - Date.now() / 1000) < 5);
  await refused('what is no command', 'ERR unknown command', () => a.sendCommand(['NOSUCH', '1']));
}

async function batches(a, b) {
  const numbers = [...Array(200).keys()];
  // What is asked for in one turn goes out as one batch.
  const answers = numbers.map((it) => [a.set(`${own}p${it}`, String(it)), a.get(`${own}p${it}`)]).flat();
  same('a batch', await Promise.all(answers), numbers.flatMap((it) => ['OK', String(it)]));
  same('elsewhere', await b.mGet(numbers.map((it) => `${own}p${it}`)), numbers.map(String));
  same('execAsPipeline', await a.multi().set(`${own}w`, 'word').get(`${own}w`).execAsPipeline(), ['OK', 'word']);
  same('exec', await a.multi().set(`{${own}}1`, '1').incr(`{${own}}1`).exec(), ['OK', 2]);
}

async function failures(a) {
  const id = await a.clientId();
  const other = await createClient({ url: urls[0] }).on('error', () => {}).connect();
  same('clientKill', await other.clientKill({ filter: 'ID', id }), 1);
  // The library finds its connection closed, and opens another one.
  await until('another connection', async () => {
    try { return (await a.clientId()) !== id; } catch { return false; }
  });
  same('with its name', await a.clientGetName(), 'tests');
  other.destroy();
  const wrong = createClient({ url: urls[0].replace(':secret-of-tests@', ':wrong-password@'), socket: { reconnectStrategy: false } });
  wrong.on('error', () => {});
  await refused('a wrong password', 'WRONGPASS', () => wrong.connect());
}

async function lateSaves(a, b) {
  await a.set(`${own}s`, 'session');
  same('read elsewhere', await b.get(`${own}s`), 'session');
  same('logged out', await a.del(`${own}s`), 1);
  const late = await b.set(`${own}s`, 'session').catch((error) => error);
  holds('a late save is an error of the server', late instanceof ErrorReply && late.message.startsWith('ERR late save: '));
  same('stays out', [await a.get(`${own}s`), await b.exists(`${own}s`)], [null, 0]);
}

// Heard at one node what is published at another.
async function channels(a, RESP) {
  const listening = await createClient({ url: urls[2], RESP }).on('error', () => {}).connect();
  const heard = [];
  await listening.subscribe(`${own}news`, (message, channel) => heard.push([channel, message]));
  await listening.pSubscribe(`${own}n*`, (message) => heard.push(['pattern', message]));
  // What was lost is published again.
  await until('a message', async () => {
    await a.publish(`${own}news`, 'hi');
    return heard.length >= 2;
  });
  same('publish', heard.slice(0, 2), [[`${own}news`, 'hi'], ['pattern', 'hi']]);
  // It waits for ever if it names none, at Redis too.
  await listening.unsubscribe(`${own}news`);
  await listening.pUnsubscribe(`${own}n*`);
  same('unsubscribe', String(await listening.ping()), 'PONG');
  listening.destroy();
}

// What the keys of a round begin with.
let own;
for (const RESP of [2, 3]) {
  own = `nr${RESP}:`;
  const [a, b] = await Promise.all(urls.slice(0, 2).map((url) => (
    createClient({ url, RESP, name: 'tests' }).on('error', () => {}).connect()
  )));
  await strings(a, b);
  await hashes(a, b);
  await sets(a, b);
  await keys(a, b);
  await server(a);
  await batches(a, b);
  await failures(a);
  await lateSaves(a, b);
  await channels(a, RESP);
  a.destroy();
  b.destroy();
}
done('node-redis 5.12.1');
