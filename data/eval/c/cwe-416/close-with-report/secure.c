    snprintf(report, size, "session %d of %s: %u bytes", session->id, session->user, session->bytes);
    free(session->user);
    free(session);
}
