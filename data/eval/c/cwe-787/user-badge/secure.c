    snprintf(badge, BADGE, "#%d %s", id, name);
}
