select format('%s.%s %s%s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              case when a.attnotnull then ' not null' else '' end)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
union all
select format('%s %s (%s)%s', t.relname,
              case when i.indisprimary then 'primary key' when i.indisunique then 'unique' else 'index' end,
              (select string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ' order by k)
               from generate_series(1, i.indnkeyatts) k),
              case when i.indpred is null then '' else ' where …' end)
from pg_index i join pg_class t on t.oid = i.indrelid
where t.relnamespace = current_schema()::regnamespace
union all
select format('%s (%s) references %s on delete %s', o.relname, a.attname, r.relname,
              case confdeltype when 'c' then 'cascade' when 'n' then 'set null' when 'r' then 'restrict' else 'no action' end)
from pg_constraint
join pg_class o on o.oid = conrelid
join pg_class r on r.oid = confrelid
join pg_attribute a on a.attrelid = conrelid and a.attnum = conkey[1]
where contype = 'f' and connamespace = current_schema()::regnamespace
