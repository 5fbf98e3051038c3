    char *user = session->user;
    free(session);
    snprintf(report, size, "session %d of %s: %u bytes", session->id, user, session->bytes);
    free(user);
}
