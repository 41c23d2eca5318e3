"""The engine `ray`: roles as actors of a Ray cluster, on one machine or many."""
