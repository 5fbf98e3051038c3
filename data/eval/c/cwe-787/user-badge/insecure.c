    sprintf(badge, "#%d %s", id, name);
}
