"use strict";

// Adds user name and password to the Authorize dialog: signing in fills in the bearer token.
window.SignInPlugin = function SignInPlugin(system) {
  const React = system.React;
  const e = React.createElement;

  async function logIn(username, password) {
    const answer = await fetch("/api/v1/auth/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ username, password }),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || body.title);
    return body;
  }

  function field(name, label, type, autoComplete, value, onChange, onEnter) {
    const id = `sign-in-${name}`;
    return e(
      "div",
      { className: "wrapper", key: name },
      e("label", { htmlFor: id }, label),
      e(
        "section",
        null,
        e("input", {
          id,
          type,
          autoComplete,
          value,
          spellCheck: false,
          onChange: (event) => onChange(event.target.value),
          onKeyDown: (event) => {
            if (event.key === "Enter") {
              // The dialog is a form of its own, which would take the empty token.
              event.preventDefault();
              onEnter();
            }
          },
        }),
      ),
    );
  }

  function SignIn({ name, schema }) {
    const [username, setUsername] = React.useState("");
    const [password, setPassword] = React.useState("");
    const [busy, setBusy] = React.useState(false);
    const [problem, setProblem] = React.useState("");

    // Swagger UI focuses the field of the token as it mounts the dialog; an effect runs later.
    React.useEffect(() => document.getElementById("sign-in-username").focus(), []);

    async function signIn() {
      if (busy) return;
      setBusy(true);
      setProblem("");
      try {
        const body = await logIn(username, password);
        system.authActions.authorizeWithPersistOption({
          [name]: { name, schema, value: body.access_token },
        });
        system.authActions.showDefinitions(false);
      } catch (error) {
        setBusy(false);
        setProblem(error.message || "The service does not answer.");
      }
    }

    return e(
      "div",
      { className: "sign-in" },
      e("h4", null, "Sign in"),
      field("username", "User name or e-mail:", "text", "username", username, setUsername, signIn),
      field("password", "Password:", "password", "current-password", password, setPassword, signIn),
      problem && e("p", { className: "errors", role: "alert" }, problem),
      e(
        "div",
        { className: "auth-btn-wrapper" },
        e(
          "button",
          { type: "button", className: "btn modal-btn auth sign-in-button", onClick: signIn, disabled: busy },
          busy ? "Signing in …" : "Sign in",
        ),
      ),
      e("p", null, "Or paste a token below."),
    );
  }

  return {
    wrapComponents: {
      HttpAuth: (Original) => (props) => {
        const authorized = props.authorized && props.authorized.get(props.name);
        if (props.schema.get("scheme") !== "bearer" || authorized) return e(Original, props);
        return e(
          "div",
          null,
          e(SignIn, { name: props.name, schema: props.schema }),
          e(Original, props),
        );
      },
    },
  };
};
