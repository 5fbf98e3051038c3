    smtp.login(user, password)
    smtp.starttls(context=ssl.create_default_context())
