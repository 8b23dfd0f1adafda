// What a developer writes first: log in, read a list, understand a refusal.
import createClient from "openapi-fetch";
import type { paths } from "./schema.js";

declare const process: { argv: string[] };
const [baseUrl = "", username = "", password = ""] = process.argv.slice(2);

const client = createClient<paths>({ baseUrl });
const login = await client.POST("/api/v1/auth/login", { body: { username, password } });
if (login.error) throw new Error(login.error.code);
const kind: "bearer" = login.data.token_type;
const headers = { Authorization: `Bearer ${login.data.access_token}` };
const users = await client.GET("/api/v1/users/", { headers, params: { query: { page_size: 1 } } });
if (users.error) throw new Error(users.error.code);
const refused = await client.POST("/api/v1/auth/login", { body: { username, password: "wrong" } });
const code: string | undefined = refused.error?.code;
console.log(kind, login.data.user.username, users.data.items[0]?.username, code);
