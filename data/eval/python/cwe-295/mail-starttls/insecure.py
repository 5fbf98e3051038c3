    smtp.starttls()
    smtp.login(user, password)
