-- The login users of an installation, each in the group roles that its process needs and in no other.
-- Run once by a superuser, in the installation's database, before the first `tenant-billing migrate`; safe to repeat.
-- All passwords are set to what the file below holds: give each user its own afterwards (alter role … password).

do $$
declare
    password text := trim(both e' \t\r\n' from pg_read_file('/run/secrets/postgres_password'));
    logins jsonb := '{
        "tenant_billing_migrator": ["migration"],
        "tenant_billing_worker": ["ingest", "close"],
        "tenant_billing_invoicer": ["invoicing"],
        "tenant_billing_operator": ["directory", "ingest", "close", "invoicing", "reading"],
        "tenant_billing_reader": ["reading"]
    }';
    login text;
    duty text;
begin
    foreach duty in array array['migration', 'ingest', 'close', 'invoicing', 'directory', 'reading'] loop
        if not exists (select from pg_roles where rolname = 'tenant_billing_' || duty) then
            execute format('create role %I nologin', 'tenant_billing_' || duty);
        end if;
    end loop;
    for login in select jsonb_object_keys(logins) loop
        if not exists (select from pg_roles where rolname = login) then
            execute format('create role %I login', login);
        end if;
        execute format('alter role %I password %L', login, password);
        for duty in select jsonb_array_elements_text(logins -> login) loop
            execute format('grant %I to %I', 'tenant_billing_' || duty, login);
        end loop;
    end loop;
    execute format('grant create on schema %I to tenant_billing_migration', current_schema());
end $$;
