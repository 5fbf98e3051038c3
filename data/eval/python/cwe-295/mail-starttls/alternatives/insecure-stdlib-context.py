    smtp.starttls(context=ssl._create_stdlib_context())
    smtp.login(user, password)
