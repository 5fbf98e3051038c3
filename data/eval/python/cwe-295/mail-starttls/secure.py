    smtp.starttls(context=ssl.create_default_context())
    smtp.login(user, password)
