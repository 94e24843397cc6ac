// ioredis.

import { Redis } from 'ioredis';
import { done, holds, refused, same, until, urls } from './check.mjs';

const open = (url, more) => new Redis(url, { connectionName: 'tests', ...more }).on('error', () => {});
const [a, b] = [open(urls[0]), open(urls[1])];

same('set', await a.set('io:1', 'one', 'EX', 100), 'OK');
same('get elsewhere', await b.get('io:1'), 'one');
const ttl = await b.ttl('io:1');
holds('ttl', ttl >= 95 && ttl <= 100);
same('set XX GET', await b.set('io:1', 'two', 'KEEPTTL', 'XX', 'GET'), 'one');
same('set NX', [await a.set('io:1', 'x', 'NX'), await a.set('io:2', '2', 'PX', 50_000, 'NX')], [null, 'OK']);
same('setex, psetex, setnx', [await a.setex('io:3', 60, '3'), await a.psetex('io:4', 60_000, '4'), await a.setnx('io:4', 'x')], ['OK', 'OK', 0]);
same('mget', await b.mget('io:1', 'nothing', 'io:2'), ['two', null, '2']);
same('mset', await a.mset({ 'io:5': '5', 'io:6': '6' }), 'OK');
same('incr', [await b.incr('io:5'), await a.incrby('io:5', 10), await b.decrby('io:5', 2)], [6, 16, 14]);
await refused('incr of a word', 'ERR value is not an integer', () => a.incr('io:1'));
same('append', [await b.append('io:6', '66'), await a.strlen('io:6'), await a.setrange('io:6', 1, '78'), await b.getrange('io:6', 0, -1)], [3, 3, 3, '678']);
same('getex, getdel, getset', [await b.getex('io:6', 'EX', 9), await b.getset('io:6', 'new'), await a.getdel('io:6'), await a.get('io:6')], ['678', '678', 'new', null]);
const bytes = Buffer.from([...Array(256).keys()]);
same('any bytes', [await a.set(bytes.subarray(0, 100), bytes), bytes.equals(await b.getBuffer(bytes.subarray(0, 100)))], ['OK', true]);

same('hset', [await a.hset('io:h', { user: 'alice', cart: '3' }), await a.hmset('io:h', 'cart', '4')], [2, 'OK']);
await until('the fields elsewhere', async () => (await b.hget('io:h', 'cart')) === '4');
same('hgetall', await b.hgetall('io:h'), { cart: '4', user: 'alice' });
same('hincrby, hdel', [await b.hincrby('io:h', 'cart', 1), await b.hdel('io:h', 'cart', 'user'), await a.exists('io:h')], [5, 2, 0]);
same('sadd, smembers', [await a.sadd('io:t', 's1', 's2'), await a.smembers('io:t'), await a.srem('io:t', 's1', 's2')], [2, ['s1', 's2'], 2]);
same('zadd', await a.zadd('io:z', 1, 's1', 2.5, 's2'), 2);
same('zrangebyscore, zrem', [await a.zrangebyscore('io:z', '-inf', '+inf', 'WITHSCORES'), await a.zrem('io:z', 's1', 's2')], [['s1', '1', 's2', '2.5'], 2]);
same('exists, touch, type', [await b.exists('io:1', 'nothing'), await b.touch('io:1'), await b.type('io:1')], [1, 1, 'string']);
same('expire', [await a.expire('io:1', 50), await a.expire('io:1', 60, 'NX'), await a.pexpire('io:1', 70_000, 'GT'), await a.persist('io:1')], [1, 0, 1, 1]);
same('del', [await a.del('io:1', 'io:2', 'nothing'), await b.unlink('io:3'), await b.get('io:1'), await b.expire('io:1', 9)], [2, 1, null, 0]);
holds('info', (await a.info()).includes('loading:0'));
same('client', [await a.client('GETNAME'), await a.ping(), await a.echo('hello')], ['tests', 'PONG', 'hello']);
holds('command', (await a.command('COUNT')) > 40 && (await a.call('COMMAND', 'INFO', 'get'))[0][0] === 'get');
await refused('what is no command', 'ERR unknown command', () => a.call('NOSUCH', '1'));

const numbers = [...Array(200).keys()];
const pipeline = a.pipeline();
numbers.forEach((it) => pipeline.set(`io:p${it}`, it).get(`io:p${it}`));
same('a pipeline', await pipeline.exec(), numbers.flatMap((it) => [[null, 'OK'], [null, String(it)]]));
const automatic = open(urls[1], { enableAutoPipelining: true, keyPrefix: 'io:' });
same('pipelines by itself', await Promise.all(numbers.map((it) => automatic.get(`p${it}`))), numbers.map(String));
same('multi', await a.multi().set('{io}1', '1').incr('{io}1').exec(), [[null, 'OK'], [null, 2]]);
const found = new Set();
for await (const some of a.scanStream({ match: 'io:[45]' })) some.forEach((key) => found.add(key));
same('scanStream', [...found].sort(), ['io:4', 'io:5']);

const id = await a.client('ID');
same('client kill', await b.client('LIST').then((list) => list.includes('name=tests')), true);
const other = open(urls[0]);
same('client kill', await other.client('KILL', 'ID', id), 1);
await until('another connection', async () => (await a.client('ID')) !== id);
same('with its name', await a.client('GETNAME'), 'tests');

await a.set('io:s', 'session');
same('read elsewhere, logged out', [await b.get('io:s'), await a.del('io:s')], ['session', 1]);
await refused('a late save', 'ERR late save: ', () => b.set('io:s', 'session', 'EX', 60));
same('stays out', [await a.get('io:s'), await b.exists('io:s')], [null, 0]);
done('ioredis 5.11.1');
