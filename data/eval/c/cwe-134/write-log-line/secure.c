    fprintf(log, "%s\n", message);
}
