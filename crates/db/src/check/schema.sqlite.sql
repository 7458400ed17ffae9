select printf('%s.%s %s%s', t.name, c.name, lower(c.type), iif(c."notnull", ' not null', ''))
from sqlite_schema t, pragma_table_info(t.name) c where t.type = 'table'
union all
select printf('%s %s (%s)%s', t.name,
              case i.origin when 'pk' then 'primary key' else iif(i."unique", 'unique', 'index') end,
              (select group_concat(name, ', ') from (select name from pragma_index_info(i.name) order by seqno)),
              iif(i.partial, ' where …', ''))
from sqlite_schema t, pragma_index_list(t.name) i where t.type = 'table'
union all
select printf('%s (%s) references %s on delete %s', t.name, f."from", f."table", lower(f.on_delete))
from sqlite_schema t, pragma_foreign_key_list(t.name) f where t.type = 'table'
